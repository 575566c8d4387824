"""Writes into slices, views and lists of views, of floats and of codes: everybody who reads the memory sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay.errors import InvalidInputError, UnsupportedOpError
from tests.frontend.models import UNOPTIMIZED

pytestmark = pytest.mark.filterwarnings("ignore:nothing in this model is int8")

Tensor = torch.Tensor


def codes(x: Tensor, scale: float = 0.05) -> Tensor:
    return torch.quantize_per_tensor(x, scale, 60, torch.quint8)


# ---- floats: (x, y) of 4 x 6


def slice_of_all_rows(x: Tensor, y: Tensor):
    x = x + 1
    x[:, 1:] = y[:, 1:]
    return x * 2


def view_is_read_too(x: Tensor, y: Tensor):
    x = x + 1
    view = x[1:3]
    view[:, ::2] = y[1:3, ::2]
    return x, view, view * 2


def numbers(x: Tensor, y: Tensor):
    x = x + 0
    x[0] = 3.0
    x[:, -1] = 2
    x[2, 3] = y[0, 0]
    return x


def halves_through_chunk(x: Tensor, y: Tensor):
    x = x + 0
    a, b = x.chunk(2, 1)
    a.copy_(b)
    b.mul_(y[:, :3])
    return x, a, b


def items_of_unbind(x: Tensor, y: Tensor):
    x = x + 0
    rows = x.unbind(0)
    rows[1].fill_(7.0)
    rows[2].add_(y[0])
    return x, rows[1]


def reshapes_and_transposes(x: Tensor, y: Tensor):
    x = x + 0
    t, flat = x.t(), x.view(-1)
    t[0] = 7.0
    before = flat * 1
    flat[3:9] = y.reshape(-1)[3:9]
    x.permute(1, 0).unsqueeze(0)[0, 2].neg_()
    return x, t, flat, before


def view_of_a_view(x: Tensor, y: Tensor):
    x = x + 0
    inner = x[1:][:, 2:]
    other = x[2]
    inner[0] += y[0, 2:]
    inner.mul_(2.0)
    return x, other, inner.relu_(), x


def broadcast_source(x: Tensor, y: Tensor):
    x = x + 0
    x[1:3] = y[0]
    x[:, 4:] = y[:, :1]
    return x


def masks(x: Tensor, y: Tensor):
    x = x + 0
    x[x > 0.5] = 9.0
    x[1:].masked_fill_(y[1:] > 0, -1.0)
    x.masked_fill_(y > 1, 0.25)
    return x


def integers(x: Tensor, y: Tensor):
    x = x + 0
    x[torch.tensor([0, 3]), torch.tensor([1, -1])] = torch.tensor([5.0, 6.0])
    x[:, torch.tensor([2, 0])] = y[:, :2]
    x[torch.tensor([1, 1])] = y[:1]
    return x.index_put((torch.tensor([0, 0, 2]),), y[:3], accumulate=True)


def filled_buffer(x: Tensor, y: Tensor):
    out = torch.zeros(4, 12)
    out[:, ::2] = x
    out[:, 1::2] = y
    return out


def swapped_parts(x: Tensor, y: Tensor):
    out = torch.empty_like(x + 0)
    out[:, :3], out[:, 3:] = x[:, 3:], x[:, :3]
    return out


def out_forms(x: Tensor, y: Tensor):
    less, same, total = torch.zeros(4, 6, dtype=torch.bool), torch.zeros(4, 6), torch.zeros(4, 6)
    torch.lt(x, y, out=less)
    torch.ge(x, 0.5, out=same)
    torch.add(x, y, out=total)
    return less, same, torch.mul(total, 2.0, out=total), total


def comparisons_with_out(x: Tensor, y: Tensor):
    a, b, c = torch.zeros(4, 6), torch.zeros(4, 6, dtype=torch.int32), torch.zeros(4, 6, dtype=torch.bool)
    torch.eq(x, x, out=a)
    torch.ne(x, 0.0, out=b)
    return torch.le(x, y, out=c), torch.gt(x, y, out=c[:]), a, b, c


def into_an_item_of_a_list(x: Tensor, y: Tensor):
    x = x + 0
    both = [x, y]
    x[0] = 1.0
    return torch.cat(both), torch.stack(both)


def scattered(x: Tensor, y: Tensor):
    index = torch.tensor([[0, 2, 1, 0, 3, 2]])
    x = x + 0
    x.scatter_(0, index, y)
    x = x.scatter(1, index, 4.0).index_fill(1, torch.tensor([-1]), 8.0)
    return x.index_copy(0, torch.tensor([2, 0]), y[:2]), x.index_add(0, torch.tensor([1, 3]), y[2:])


FLOATS = (
    slice_of_all_rows, view_is_read_too, numbers, halves_through_chunk, items_of_unbind, reshapes_and_transposes,
    view_of_a_view, broadcast_source, masks, integers, filled_buffer, swapped_parts, out_forms, comparisons_with_out,
    into_an_item_of_a_list, scattered,
)  # fmt: skip


# ---- codes


def codes_into_a_slice(x: Tensor, y: Tensor):
    q, r = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8), torch.quantize_per_tensor(y, 0.02, 70, torch.quint8)
    view, row = q[:, 1:3], q[0]
    view.copy_(r[:, 1:3])
    return q, row, view


def view_with_a_scale_of_its_own(x: Tensor, y: Tensor):
    q, r = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8), torch.quantize_per_tensor(y, 0.02, 70, torch.quint8)
    view = q[1:]
    view.copy_(r[1:])
    q[2].fill_(0.5)
    return q, view, view[0]


def number_into_a_slice(x: Tensor, y: Tensor):
    q = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
    q[1:3].fill_(0.33)
    q[3].fill_(-0.71)
    return q, q.t()


def mask_of_codes(x: Tensor, y: Tensor):
    q = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
    q.masked_fill_(y > 0, 0.47)
    q[:2].masked_fill_(y[:2] < -1, 100.0)
    return q


def floats_into_codes(x: Tensor, y: Tensor):
    q = torch.quantize_per_tensor(x, 0.05, 60, torch.qint8)
    q[2].copy_(y[0])
    q.index_put_((torch.tensor([0, 3]),), y[0])
    q.index_put_((torch.tensor([1]), torch.tensor([-1])), torch.tensor(0.55))
    return q


def mask_takes_a_number(x: Tensor, y: Tensor):
    q = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
    q.index_put_((y > 0.3,), torch.tensor(0.81))
    return q


def relu_of_a_part(x: Tensor, y: Tensor):
    q = torch.quantize_per_tensor(x, 0.05, 60, torch.quint8)
    torch.relu_(q[1:])
    return q, torch.ops.quantized.add(q, q, 0.1, 50)


CODES = (
    codes_into_a_slice, view_with_a_scale_of_its_own, number_into_a_slice, mask_of_codes, floats_into_codes,
    mask_takes_a_number, relu_of_a_part,
)  # fmt: skip


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor):
        return self.function(x, y)


def flat(value: Any) -> Iterator[Tensor]:
    for item in value if isinstance(value, tuple | list) else [value]:
        yield from flat(item) if isinstance(item, tuple | list) else [item]


def as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return (tensor.int_repr() if tensor.is_quantized else tensor).numpy()


@pytest.mark.parametrize("form", ["traced", "scripted"])
@pytest.mark.parametrize("function", [*FLOATS, *CODES], ids=lambda function: function.__name__)
def test_all_readers_see_what_was_written(function: Callable[..., Any], form: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x, y = (torch.randn(4, 6, generator=generator) for _ in range(2))
    model: nn.Module = Calls(function).eval()
    if form == "scripted":
        model = torch.jit.script(Calls(torch.jit.script(function)).eval())
    compiled = qr.compile(model, [("x", (4, 6)), ("y", (4, 6))], UNOPTIMIZED, "fbgemm", kernels=False)
    expected, found = list(flat(function(x.clone(), y.clone()))), list(flat(compiled(x, y)))
    for theirs, ours in zip(expected, found, strict=True):
        assert theirs.dtype == ours.dtype
        np.testing.assert_array_equal(as_array(theirs), as_array(ours))
        if theirs.is_quantized:
            assert (theirs.q_scale(), theirs.q_zero_point()) == (ours.q_scale(), ours.q_zero_point())


def test_an_index_to_write_to_is_checked() -> None:
    def function(x: Tensor, i: Tensor) -> Tensor:
        x = x + 0
        x[i] = 1.0
        return x

    x, i = torch.randn(3, 4), torch.tensor([0, -3])
    compiled = qr.compile(Calls(function), [("x", x), ("i", i)], UNOPTIMIZED, kernels=False)
    assert torch.equal(compiled(x, i), function(x, i))
    with pytest.raises(InvalidInputError, match="index 3 is out of range; accepted are -3 to 2"):
        compiled(x, torch.tensor([3, 0]))


def test_rows_of_any_batch_are_written_to() -> None:
    model = Calls(slice_of_all_rows)
    compiled = qr.compile(model, [("x", ("n", 6)), ("y", ("n", 6))], UNOPTIMIZED, kernels=False)
    for n in (1, 3):
        x, y = torch.randn(n, 6), torch.randn(n, 6)
        assert torch.equal(compiled(x, y), model(x, y))


def through_diagonal(x: Tensor, y: Tensor):
    x = x + 0
    x.diagonal().fill_(1.0)
    return x


def values_of_a_mask(x: Tensor, y: Tensor):
    x = x + 0
    x[y > 0] = y[y > 0]
    return x


def views_of_a_view_with_a_scale_of_its_own(x: Tensor, y: Tensor):
    q = codes(x)
    view = q[1:]
    inner = view[1:]
    view.copy_(codes(y, 0.02)[1:])
    return q, inner


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (through_diagonal, "writes through aten::diagonal, a view without a way back"),
        (values_of_a_mask, "known only at run time"),
        (views_of_a_view_with_a_scale_of_its_own, "gives a view the scale of what it copies"),
    ],
)
def test_what_cannot_be_followed_is_refused(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(UnsupportedOpError, match=reason):
        qr.from_pytorch(Calls(function), [("x", (4, 6)), ("y", (4, 6))], "fbgemm")
