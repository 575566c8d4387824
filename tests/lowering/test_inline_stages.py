"""A fused function has one loop for ops that follow each other; what would round or cost otherwise stays apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qtorch_relay._tvm import PrimFunc, relax
from qtorch_relay.pipeline import generic_passes
from qtorch_relay.target import resolve
from tests.lowering.build import Case, Emit

op = relax.op

INPUTS = {"x": ((4, 16), "float32"), "v": ((4, 1), "float32")}


def _chain(emit: Emit, x: Any, v: Any) -> Any:
    return emit(op.maximum(emit(op.negative(emit(op.add(x, x)))), v))


def _product(emit: Emit, x: Any, v: Any) -> Any:
    return emit(op.add(emit(op.multiply(x, x)), v))


def _spread(emit: Emit, x: Any, v: Any) -> Any:
    return emit(op.divide(x, emit(op.sqrt(v))))


def _read_twice(emit: Emit, x: Any, v: Any) -> Any:
    root = emit(op.sqrt(emit(op.abs(x))))
    return emit(op.add(emit(op.exp(root)), emit(op.divide(v, root))))


# what is computed, and how many stages are left
CASES: dict[str, tuple[Callable[..., Any], int]] = {
    "ops that follow each other": (_chain, 1),
    "a product that is added to": (_product, 2),
    "a column that every element of a row reads": (_spread, 2),
    "a value that two stages read": (_read_twice, 2),
}


def _stages(mod: Any) -> list[int]:
    return [
        function.script().count("T.sblock(") - function.script().count('# with T.sblock("root")')
        for function in mod.functions.values()
        if isinstance(function, PrimFunc)
    ]


@pytest.mark.parametrize("name", CASES)
def test_stages_that_are_left(name: str) -> None:
    body, stages = CASES[name]
    with resolve("host").to_tvm():
        assert _stages(generic_passes()(Case("case", INPUTS, body).module())) == [stages]
