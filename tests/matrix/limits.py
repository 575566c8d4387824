"""Rows of ops that bound codes: clamp, hardtanh, relu6, hardsigmoid, in every overload that PyTorch runs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as functional

from tests.matrix.case import Case
from tests.matrix.quantized import ENDS, FLOAT_ENGINES, both_layouts, rows

ONE_BOUND = {"qnnpack": "PyTorch's qnnpack wants both bounds"}
SCRAMBLED = {"qnnpack": "PyTorch's qnnpack scrambles channels-last maps (tests/numerics/test_inconsistent.py)"}

Function = Callable[[Any], Any]

BOUNDED: dict[str, dict[str, Function]] = {
    "aten::clamp": {
        "both": lambda q: q.clamp(-0.7, 1.2),
        "integers": lambda q: q.clamp(-1, 2),
        "past the range": lambda q: q.clamp(-1e4, 1e4),
        "clip": lambda q: q.clip(-0.3, 0.31),
    },
    "aten::hardtanh": {
        "plain": functional.hardtanh,
        "bounds": lambda q: functional.hardtanh(q, -0.7, 1.2),
        "in place": lambda q: functional.hardtanh(q.clone(), -0.7, 1.2, inplace=True),
    },
    "aten::relu6": {"plain": functional.relu6, "in place": lambda q: functional.relu6(q.clone(), inplace=True)},
}
ONE_SIDED: dict[str, Function] = {"low": lambda q: q.clamp(min=-0.7), "high": lambda q: q.clamp(max=1.2)}
OTHERS: dict[str, dict[str, Function]] = {
    "aten::relu": {"in place": lambda q: torch.relu_(q.clone())},
    "aten::hardsigmoid": {
        "plain": functional.hardsigmoid,
        "in place": lambda q: functional.hardsigmoid(q.clone(), inplace=True),
        "out": lambda q: torch.ops.aten.hardsigmoid.out(q, out=q.clone()),
    },
    "aten::tanh": {"plain": torch.tanh},
    "aten::sigmoid": {"plain": torch.sigmoid},
}
MAP = (2, 4, 4, 8)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    for op, functions in BOUNDED.items():
        for name, function in functions.items():
            yield from rows(op, name, function, MAP)
            yield from rows(op, f"{name}-s8", function, MAP, channels_last=True, dtypes=("s8",))
            yield from rows(
                *(op, f"{name}-map", function, MAP),
                channels_last=True,
                dtypes=("u8",),
                engines=FLOAT_ENGINES,
                left_out=SCRAMBLED,
            )
        for dtype in ENDS:
            yield from rows(op, "end", next(iter(functions.values())), (3, 64), dtypes=(dtype,))
    for name, function in ONE_SIDED.items():
        yield from rows("aten::clamp", name, function, MAP, engines=FLOAT_ENGINES, left_out=ONE_BOUND)

    for op, functions in OTHERS.items():
        for name, function in functions.items():
            yield from both_layouts(op, name, function, MAP)
