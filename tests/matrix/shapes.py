"""Rows of ops that move, cut, repeat or rename codes and keep their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from tests.matrix.case import Case
from tests.matrix.quantized import ONE_KERNEL
from tests.matrix.quantized import both_layouts as _both_layouts
from tests.matrix.quantized import rows as _rows

Shape = tuple[int, ...]
Row = tuple[str, str, Callable[..., Any], Shape]

AXES: tuple[Row, ...] = (
    ("aten::transpose", "0-1", lambda q: q.transpose(0, 1), (3, 5, 7)),
    ("aten::transpose", "last", lambda q: q.transpose(-1, 0), (3, 5, 7)),
    ("aten::t", "matrix", lambda q: q.t(), (5, 7)),
    ("aten::t", "vector", lambda q: q.t(), (5,)),
    ("aten::numpy_T", "matrix", lambda q: q.T, (5, 7)),
    ("aten::mT", "batch", lambda q: q.mT, (2, 5, 7)),
    ("aten::adjoint", "batch", lambda q: torch.adjoint(q), (2, 5, 7)),
    ("aten::swapaxes", "", lambda q: q.swapaxes(0, -1), (3, 5, 7)),
    ("aten::swapdims", "", lambda q: q.swapdims(1, 2), (3, 5, 7)),
    ("aten::movedim", "one", lambda q: q.movedim(0, 2), (3, 5, 7)),
    ("aten::movedim", "two", lambda q: q.movedim((0, 1), (-1, 0)), (3, 5, 7, 2)),
    ("aten::moveaxis", "one", lambda q: q.moveaxis(-1, 0), (3, 5, 7)),
    ("aten::moveaxis", "two", lambda q: q.moveaxis((2, 0), (0, 1)), (3, 5, 7)),
    ("aten::permute", "", lambda q: q.permute(2, 0, 1), (3, 5, 7)),
    ("aten::flip", "one", lambda q: q.flip([1]), (3, 5, 7)),
    ("aten::flip", "two", lambda q: q.flip([0, -1]), (3, 5, 7)),
    ("aten::fliplr", "", lambda q: q.fliplr(), (3, 5, 7)),
    ("aten::flipud", "", lambda q: q.flipud(), (3, 5)),
    *(("aten::rot90", str(k), lambda q, k=k: q.rot90(k, (0, 1)), (3, 5, 2)) for k in (-1, 0, 1, 2, 3)),
)

CUTS: tuple[Row, ...] = (
    ("aten::chunk", "even", lambda q: q.chunk(3, 1), (2, 6, 5)),
    ("aten::chunk", "uneven", lambda q: q.chunk(3, -1), (2, 7)),
    ("aten::unsafe_chunk", "", lambda q: q.unsafe_chunk(2, 1), (2, 7, 5)),
    ("aten::split", "size", lambda q: q.split(3, 1), (2, 7, 5)),
    ("aten::split", "sizes", lambda q: q.split([1, 4, 2], 1), (2, 7, 5)),
    ("aten::unsafe_split", "", lambda q: q.unsafe_split(3, 1), (2, 7, 5)),
    ("aten::split_with_sizes", "", lambda q: torch.split_with_sizes(q, [3, 4], 1), (2, 7, 5)),
    ("aten::unsafe_split_with_sizes", "", lambda q: q.unsafe_split_with_sizes([3, 4], 1), (2, 7, 5)),
    ("aten::tensor_split", "sections", lambda q: q.tensor_split(3, 1), (2, 7, 5)),
    ("aten::tensor_split", "indices", lambda q: q.tensor_split((1, 4), 1), (2, 7, 5)),
    ("aten::hsplit", "matrix", lambda q: q.hsplit(2), (3, 6)),
    ("aten::hsplit", "vector", lambda q: q.hsplit((1, 4)), (6,)),
    ("aten::vsplit", "", lambda q: q.vsplit(3), (6, 2)),
    ("aten::dsplit", "", lambda q: q.dsplit((2, 3)), (2, 2, 5)),
    ("aten::unbind", "", lambda q: q.unbind(1), (2, 3, 5)),
    ("aten::unbind", "first", lambda q: q.unbind(), (2, 3)),
    ("aten::narrow", "", lambda q: q.narrow(1, 2, 3), (2, 7, 5)),
    ("aten::narrow", "negative", lambda q: q.narrow(-1, -3, 2), (2, 7, 5)),
    ("aten::select", "", lambda q: q.select(1, -2), (2, 7, 5)),
    ("aten::slice", "step", lambda q: q[:, 1:6:2], (2, 7, 5)),
    ("aten::slice", "negative", lambda q: q[:, -4:-1, ...], (2, 7, 5)),
    ("aten::unfold", "", lambda q: q.unfold(1, 3, 2), (2, 8, 5)),
    ("aten::unfold", "last", lambda q: q.unfold(-1, 4, 1), (2, 8)),
    ("aten::as_strided", "", lambda q: q.as_strided((2, 3), (4, 1), 5), (3, 7)),
    ("aten::as_strided", "no offset", lambda q: q.as_strided((3, 3), (1, 2)), (3, 7)),
    ("aten::diagonal", "", lambda q: q.diagonal(), (5, 3)),
    ("aten::diagonal", "offset", lambda q: q.diagonal(-1, 2, 0), (3, 5, 4)),
    ("aten::diagonal", "above", lambda q: q.diagonal(2, 0, 1), (3, 5, 4)),
)

SHAPES: tuple[Row, ...] = (
    ("aten::reshape", "", lambda q: q.reshape(5, -1), (2, 5, 7)),
    ("aten::reshape", "of a view", lambda q: q.transpose(0, 1).reshape(10, 7), (2, 5, 7)),
    ("aten::view", "", lambda q: q.view(-1, 7), (2, 5, 7)),
    ("aten::_unsafe_view", "", lambda q: torch.ops.aten._unsafe_view(q, [10, 7]), (2, 5, 7)),
    ("aten::view_as", "", lambda q: q.view_as(torch.zeros(10, 7)), (2, 5, 7)),
    ("aten::reshape_as", "", lambda q: q.reshape_as(torch.zeros(7, 10)), (2, 5, 7)),
    ("aten::flatten", "", lambda q: q.flatten(1), (2, 5, 7)),
    ("aten::flatten", "some", lambda q: q.flatten(0, -2), (2, 5, 7)),
    ("aten::unflatten", "", lambda q: q.unflatten(1, (2, -1)), (2, 6, 7)),
    ("aten::ravel", "", lambda q: q.ravel(), (2, 5, 7)),
    ("aten::squeeze", "all", lambda q: q.squeeze(), (1, 5, 1, 7)),
    ("aten::squeeze", "one", lambda q: q.squeeze(-2), (1, 5, 1, 7)),
    ("aten::squeeze", "nothing", lambda q: q.squeeze(1), (1, 5, 1, 7)),
    ("aten::squeeze", "some", lambda q: q.squeeze((0, 1, 2)), (1, 5, 1, 7)),
    ("aten::unsqueeze", "", lambda q: q.unsqueeze(1), (5, 7)),
    ("aten::unsqueeze", "last", lambda q: q.unsqueeze(-1), (5, 7)),
    ("aten::squeeze_", "", lambda q: q.squeeze_(0), (1, 5, 7)),
    ("aten::unsqueeze_", "", lambda q: q.unsqueeze_(0), (5, 7)),
    ("aten::expand", "", lambda q: q.expand(4, -1, 3), (5, 1)),
    ("aten::expand_as", "", lambda q: q.expand_as(torch.zeros(2, 5, 3)), (5, 1)),
    ("aten::broadcast_to", "", lambda q: q.broadcast_to(2, 5, 3), (5, 1)),
    ("aten::broadcast_tensors", "", lambda q: torch.broadcast_tensors(q, q.reshape(1, 5)), (5, 1)),
    ("aten::meshgrid", "ij", lambda q: torch.meshgrid(q, q[:3], indexing="ij"), (5,)),
    ("aten::meshgrid", "xy", lambda q: torch.meshgrid(q, q[:3], indexing="xy"), (5,)),
    ("aten::repeat", "", lambda q: q.repeat(2, 1, 3), (5, 2)),
    ("aten::tile", "", lambda q: q.tile((2,)), (5, 2)),
    ("aten::tile", "more", lambda q: q.tile((2, 1, 3)), (5, 2)),
    ("aten::repeat_interleave", "", lambda q: q.repeat_interleave(3, 1), (5, 2)),
    ("aten::repeat_interleave", "flat", lambda q: q.repeat_interleave(2), (5, 2)),
    ("aten::atleast_1d", "", lambda q: torch.atleast_1d(q), (5, 2)),
    ("aten::atleast_2d", "", lambda q: torch.atleast_2d(q), (5,)),
    ("aten::atleast_3d", "vector", lambda q: torch.atleast_3d(q), (5,)),
    ("aten::atleast_3d", "matrix", lambda q: torch.atleast_3d(q), (5, 2)),
    ("aten::contiguous", "", lambda q: q.transpose(0, 1).contiguous(), (5, 2)),
    ("aten::clone", "", lambda q: q.clone(), (5, 2)),
    ("aten::detach", "", lambda q: q.detach(), (5, 2)),
    ("aten::alias", "", lambda q: torch.ops.aten.alias(q), (5, 2)),
    ("aten::dropout", "", lambda q: torch.dropout(q, 0.5, False), (5, 2)),
    ("aten::feature_dropout", "", lambda q: torch.feature_dropout(q, 0.5, False), (5, 2, 3)),
)

MAPS: tuple[Row, ...] = (
    ("aten::pixel_shuffle", "2", lambda q: torch.pixel_shuffle(q, 2), (2, 12, 3, 5)),
    ("aten::pixel_shuffle", "3", lambda q: torch.pixel_shuffle(q, 3), (1, 9, 2, 3)),
    ("aten::pixel_unshuffle", "2", lambda q: torch.pixel_unshuffle(q, 2), (2, 3, 4, 6)),
    ("aten::native_channel_shuffle", "", lambda q: torch.native_channel_shuffle(q, 3), (2, 6, 3, 5)),
    ("aten::contiguous", "planar", lambda q: q.contiguous(), (2, 6, 3, 5)),
    ("aten::contiguous", "channels-last", lambda q: q.contiguous(memory_format=torch.channels_last), (2, 6, 3, 5)),
    ("aten::clone", "channels-last", lambda q: q.clone(memory_format=torch.channels_last), (2, 6, 3, 5)),
    ("aten::to", "channels-last", lambda q: q.to(memory_format=torch.channels_last), (2, 6, 3, 5)),
    ("aten::flip", "map", lambda q: q.flip([2, 3]), (2, 6, 3, 5)),
    ("aten::permute", "map", lambda q: q.permute(0, 2, 3, 1), (2, 6, 3, 5)),
    ("aten::chunk", "map", lambda q: q.chunk(2, 1), (2, 6, 3, 5)),
    ("aten::flatten", "map", lambda q: q.flatten(1), (2, 6, 3, 5)),
    ("aten::select", "map", lambda q: q[:, 2], (2, 6, 3, 5)),
    ("aten::unfold", "map", lambda q: q.unfold(2, 2, 1), (2, 6, 3, 5)),
)


def cases() -> Iterator[Case]:
    """Yields the rows."""
    rows, both_layouts = (partial(make, **ONE_KERNEL) for make in (_rows, _both_layouts))
    for op, variant, function, shape in (*AXES, *CUTS, *SHAPES):
        yield from rows(op, variant or "plain", function, shape)
    for op, variant, function, shape in MAPS:
        yield from both_layouts(op, variant or "plain", function, shape)
    for groups in (2, 3):
        yield from both_layouts(
            "aten::channel_shuffle",
            str(groups),
            lambda q, groups=groups: torch.channel_shuffle(q, groups),
            (2, 6, 3, 5),
            dtypes=("u8",),
        )
