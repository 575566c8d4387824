"""What is handed to compile as (mod, params): what from_pytorch returned, or something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import qtorch_relay as qr
from qtorch_relay.errors import FloatModelWarning, InvalidInputError


@pytest.fixture(scope="module")
def pair() -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    return qr.from_pytorch(torch.nn.Linear(4, 3), [("x", (1, 4))])


@pytest.mark.filterwarnings(f"ignore::{FloatModelWarning.__module__}.{FloatModelWarning.__name__}")
@pytest.mark.parametrize("convert", [lambda v: v, lambda v: v.numpy(), lambda v: torch.from_numpy(v.numpy())])
def test_weights_may_be_of_tvm_numpy_or_torch(pair: tuple[Any, dict[str, Any]], convert: Callable[..., Any]) -> None:
    mod, params = pair
    compiled = qr.compile((mod, {name: convert(value) for name, value in params.items()}))
    assert [spec.name for spec in compiled.inputs] == ["x"]


BAD_PAIRS = [
    (lambda mod, params: (mod,), r"a tuple of \['IRModule'\]; accepted is \(mod, params\) as from_pytorch returns it"),
    (lambda mod, params: (params, mod), r"a tuple of \['dict', 'IRModule'\]"),
    (lambda mod, params: (mod, params, None), "a tuple of"),
    (lambda mod, params: (torch.nn.ReLU(), params), r"a tuple of \['ReLU', 'dict'\]"),
    (lambda mod, params: (type(mod)({}), params), "the module has no function main"),
    (lambda mod, params: (mod, {**params, "more": np.zeros(1)}), "no parameter for the weights more"),
    (lambda mod, params: (mod, dict(list(params.items())[1:])), r"the weights \w+ of main are missing"),
    (
        lambda mod, params: (mod, {n: v.numpy()[:1] for n, v in params.items()}),
        r"is float32 \[1.*main takes float32 \[",
    ),
    (lambda mod, params: (mod, {n: v.numpy().astype("int8") for n, v in params.items()}), r"is int8 .*takes float32"),
    (lambda mod, params: (mod, {n: v.numpy().tolist() for n, v in params.items()}), r"weight \w+ is a list; accepted"),
]


@pytest.mark.parametrize(("change", "message"), BAD_PAIRS)
def test_what_is_no_such_pair_is_refused(
    pair: tuple[Any, dict[str, Any]], change: Callable[..., Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        qr.compile(change(*pair))
