"""Indices known only when the program runs: the ends of the range give PyTorch's elements, what lies outside raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay.errors import InvalidInputError
from tests.frontend.models import UNOPTIMIZED, quantize

ROWS, COLUMNS = 3, 4


class Indexed(nn.Module):
    def __init__(self, function: Callable[[Any, Any], Any], *, codes: bool) -> None:
        super().__init__()
        self.function, self.codes = function, codes

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self.function(quantize(x) if self.codes else x, index)


pytestmark = pytest.mark.filterwarnings("ignore:nothing in this model is int8", "default:there are no int8 kernels")

# name: function, whether it takes codes too, the accepted range, as the error names the op
OPS: dict[str, tuple[Callable[[Any, Any], Any], bool, int, int, str]] = {
    "index": (lambda x, i: x[:, i], True, -COLUMNS, COLUMNS - 1, "aten::index.Tensor"),
    "index_of_two": (lambda x, i: x[torch.tensor([2, 0, -1, 1]), i], True, -COLUMNS, COLUMNS - 1, "aten::index.Tensor"),
    "index_select": (lambda x, i: x.index_select(-1, i), True, 0, COLUMNS - 1, "aten::index_select"),
    "gather": (lambda x, i: x.gather(1, i.reshape(2, -1)), False, 0, COLUMNS - 1, "aten::gather"),
    "gather_rows": (lambda x, i: x.gather(0, i.reshape(1, -1)), False, 0, ROWS - 1, "aten::gather"),
    "take": (lambda x, i: torch.take(x, i.reshape(2, -1)), False, -ROWS * COLUMNS, ROWS * COLUMNS - 1, "aten::take"),
    "take_along_dim": (
        lambda x, i: torch.take_along_dim(x, i.reshape(1, -1), 1), False, -COLUMNS, COLUMNS - 1, "aten::take_along_dim"
    ),
    "embedding": (lambda x, i: nn.functional.embedding(i, x), False, 0, ROWS - 1, "aten::embedding"),
}  # fmt: skip
FORMS = [(name, codes) for name, op in OPS.items() for codes in ([False, True] if op[1] else [False])]
x = torch.arange(ROWS * COLUMNS, dtype=torch.float32).reshape(ROWS, COLUMNS) / 8 - 0.5


def example(first: int, last: int) -> torch.Tensor:
    return torch.tensor([first, last, 0, last])


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("name", "codes"), FORMS)
def test_the_ends_are_pytorchs_and_what_lies_outside_raises(name: str, codes: bool, kernels: bool) -> None:
    function, _, first, last, op = OPS[name]
    model, inside = Indexed(function, codes=codes), example(first, last)
    infos = [("x", x), ("index", inside)]
    compiled = qr.compile(model, infos, "host" if kernels else UNOPTIMIZED, "fbgemm", kernels=kernels)
    expected, found = model(x, inside), compiled(x, inside)
    assert torch.equal(expected.int_repr() if codes else expected, found.int_repr() if codes else found)
    for outside in (first - 1, last + 1, 2**40):
        message = rf"{op}.*: index {outside} is out of range; accepted are {first} to {last}"
        with pytest.raises(InvalidInputError, match=message):
            compiled(x, torch.tensor([0, 0, outside, 0]))
    found = compiled(x, inside)  # a call that raised leaves nothing behind
    assert torch.equal(expected.int_repr() if codes else expected, found.int_repr() if codes else found)


def test_a_saved_program_checks_too(tmp_path: Path) -> None:
    qr.compile(Indexed(OPS["index"][0], codes=True), [("x", x), ("i", example(0, 3))], UNOPTIMIZED).save(
        tmp_path / "m.qtr"
    )
    with pytest.raises(InvalidInputError, match="index 4 is out of range; accepted are -4 to 3"):
        qr.load(tmp_path / "m.qtr")(x, torch.tensor([0, 4, 0, 0]))


@pytest.mark.parametrize("kernels", [True, False])
def test_the_range_is_that_of_the_call_where_the_extent_is_a_name(kernels: bool) -> None:
    model = Indexed(lambda x, i: (x[i], x.index_select(0, i[-1:])), codes=False)
    target = "host" if kernels else UNOPTIMIZED
    compiled = qr.compile(model, [("x", ("n", 3)), ("i", ((4,), "int64"))], target, kernels=kernels)
    for n in (2, 5):
        data = torch.randn(n, 3)
        index = torch.tensor([0, -n, n - 1, 1])
        for expected, found in zip(model(data, index), compiled(data, index), strict=True):
            assert torch.equal(expected, found)
        with pytest.raises(InvalidInputError, match=f"index {n} is out of range; accepted are -{n} to {n - 1}"):
            compiled(data, torch.tensor([0, n, 0, 0]))


@pytest.mark.parametrize("kernels", [True, False])
def test_an_embedding_takes_any_number_of_indices(kernels: bool) -> None:
    model = nn.Embedding(10, 4)
    compiled = qr.compile(model, [("i", (("n", 5), "int64"))], "host" if kernels else UNOPTIMIZED, kernels=kernels)
    for n in (1, 2, 7):
        index = torch.randint(0, 10, (n, 5))
        assert torch.equal(compiled(index), model(index))
