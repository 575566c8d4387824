"""Convolutions of one and three dimensions as two-dimensional ones, so that they are the same qnn ops and kernels.

One dimension is an image of one row. Of three, the depth goes two ways: where the output has a depth, into the batch;
what a window reads along the depth, into the input channels. A window of KD planes reads KD copies of the data, each
shifted, so C channels become KD * C; the sums are the same products in the same group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import relax
from qtorch_relay.capture.graph import ConvParams
from qtorch_relay.frontend.context import ImportContext
from qtorch_relay.qnn.op_def import static_shape
from qtorch_relay.qnn.padding import pad_codes, spread_codes


@dataclass(frozen=True, eq=False)
class Planes:
    """A convolution in two dimensions: data [N, C, H, W] and weight (OIHW, or IOHW if transposed) as variables.

    batch and rank are those of the original data.
    """

    data: Any
    weight: Any
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    batch: int
    rank: int

    def restore(self, context: ImportContext, result: Any) -> Any:
        """Returns a result [N, O, OH, OW] in the original rank."""
        if self.rank == 4:
            return result
        if self.rank == 3:
            return context.emit(relax.op.squeeze(result, [2]))
        planes, *image = static_shape(result)
        split = context.emit(relax.op.reshape(result, (self.batch, planes // self.batch, *image)))
        return context.emit(relax.op.permute_dims(split, [0, 2, 1, 3, 4]))


def to_planes(context: ImportContext, data: Any, zero_point: Any, params: ConvParams, layer: str) -> Planes:
    """Returns a convolution of any rank in two dimensions.

    data: codes [N, C, spatial...]; zero_point: theirs, a number or a run-time value. layer: the name for the weight.
    """
    shape, codes = static_shape(data), params.weight.codes
    name = f"{layer}_weight"
    if len(shape) == 4:
        weight = context.param(name, codes)
    elif len(shape) == 3:
        data = context.emit(relax.op.expand_dims(data, 2))
        weight = context.derived_param(name, codes, lambda: codes[:, :, None])
    else:
        data = _windows_along_depth(context, data, zero_point, params)
        weight = context.derived_param(name, codes, lambda: np.ascontiguousarray(_planar_weight(params)))
    return Planes(
        data,
        weight,
        _in_two(params.stride, 1),
        _in_two(params.padding, 0),
        _in_two(params.output_padding, 0),
        _in_two(params.dilation, 1),
        shape[0],
        len(shape),
    )


def _in_two(values: tuple[int, ...], of_one_row: int) -> tuple[int, int]:
    """Returns the last two of a convolution's steps or widths, with that of an image of one row in front of one."""
    height, width = (of_one_row, *values)[-2:]
    return height, width


def _windows_along_depth(context: ImportContext, data: Any, zero_point: Any, params: ConvParams) -> Any:
    """Returns [N, C, D, H, W] as [N * OD, KD * C, H, W], the channels of a group together, KD outermost in each."""
    batch, channels, _, height, width = static_shape(data)
    depth, groups = params.weight.codes.shape[2], params.groups
    stride, padding, dilation = params.stride[0], params.padding[0], params.dilation[0]
    before = after = padding
    if params.transpose:
        # a transposed convolution is one of stride 1 over data with gaps, with the kernel turned round
        data = context.emit(spread_codes(data, [2], [stride], zero_point))
        before = dilation * (depth - 1) - padding
        after = before + params.output_padding[0]
        stride = 1
    widths = [(0, 0), (0, 0), (before, after), (0, 0), (0, 0)]
    data = context.emit(pad_codes(data, widths, zero_point))
    extent = static_shape(data)[2]
    out_depth = (extent - dilation * (depth - 1) - 1) // stride + 1
    planes = context.emit(relax.op.permute_dims(data, [0, 2, 1, 3, 4]))
    planes = context.emit(relax.op.reshape(planes, (batch, extent, groups, channels // groups, height, width)))
    windows = [
        relax.op.strided_slice(planes, [1], [first], [first + (out_depth - 1) * stride + 1], [stride])
        for first in range(0, depth * dilation, dilation)
    ]
    joined = context.emit(relax.op.concat(windows, axis=3) if depth > 1 else windows[0])
    return context.emit(relax.op.reshape(joined, (batch * out_depth, depth * channels, height, width)))


def _planar_weight(params: ConvParams) -> npt.NDArray[Any]:
    """Returns a three-dimensional weight for data from _windows_along_depth."""
    codes, groups = params.weight.codes, params.groups
    if not params.transpose:
        outputs, _, _, *image = codes.shape
        return codes.swapaxes(1, 2).reshape(outputs, -1, *image)
    channels, group_outputs, depth, *image = codes.shape
    grouped = codes[:, :, ::-1].reshape(groups, channels // groups, group_outputs, depth, *image)
    return grouped.transpose(0, 3, 1, 2, 4, 5).reshape(channels * depth, group_outputs, *image)
