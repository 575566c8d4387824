"""The int32 sums of FBGEMM's depthwise kernel in TIR: each two consecutive products are added with saturation to int16.

    torch.pair_saturated_sums(data, kernel)   uint8 data that is padded already, int8 kernel, both raw codes

One loop over the pairs of taps, whatever their number.
"""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import T, TensorType, te
from qtorch_relay.tir.ops import Expr, call_tir_op, define_tir_op

_LEAST, _GREATEST = -(2**15), 2**15 - 1


def pair_saturated_sums(
    data: Expr,
    kernel: Expr,
    shape: tuple[int, ...],
    *,
    strides: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    data_layout: str,
    kernel_layout: str,
) -> Expr:
    """Returns the sums of a convolution of raw codes, taps in row-major order of the kernel's I, H and W.

    shape: that of the sums, in data_layout.
    """
    return call_tir_op(
        "torch.pair_saturated_sums",
        [data, kernel],
        # The batch is the data's, which need not be a number.
        sample=[extent for letter, extent in zip(data_layout, shape, strict=True) if letter != "N"],
        strides=list(strides),
        dilation=list(dilation),
        groups=groups,
        data_layout=data_layout,
        kernel_layout=kernel_layout,
    )


def _integers(call: Any, name: str) -> list[int]:
    return [int(getattr(value, "value", value)) for value in call.attrs[name]]


def _shape(call: Any) -> list[Any]:
    """Returns the shape of the sums: the data's batch, and the extents of one sample, in data_layout."""
    batch = str(call.attrs["data_layout"]).index("N")
    sample = _integers(call, "sample")
    return [*sample[:batch], call.args[0].ty.shape.values[batch], *sample[batch:]]


def _legalize(builder: Any, call: Any) -> Any:
    (stride_h, stride_w), (gap_h, gap_w) = (_integers(call, name) for name in ("strides", "dilation"))
    data_layout, kernel_layout = str(call.attrs["data_layout"]), str(call.attrs["kernel_layout"])
    groups = int(call.attrs["groups"])

    def compute(data: Any, kernel: Any) -> Any:
        extents = dict(zip(kernel_layout, (int(extent) for extent in kernel.shape), strict=True))
        outputs, depth, height, width = (extents[letter] for letter in "OIHW")
        taps = depth * height * width
        pair = te.reduce_axis((0, (taps + 1) // 2), "pair")

        def product(tap: Any, place: dict[str, Any]) -> Any:
            channel, row, column = tap // (height * width), tap // width % height, tap % width
            read = {
                "N": place["N"],
                "C": place["C"] // (outputs // groups) * depth + channel,
                "H": place["H"] * stride_h + row * gap_h,
                "W": place["W"] * stride_w + column * gap_w,
            }
            weight = {"O": place["C"], "I": channel, "H": row, "W": column}
            code = data(*(read[letter] for letter in data_layout))
            return T.Cast("int32", code) * T.Cast("int32", kernel(*(weight[letter] for letter in kernel_layout)))

        def element(*index: Any) -> Any:
            place = dict(zip(data_layout, index, strict=True))
            first = product(2 * pair, place)
            # the last of an odd number of taps fits alone: 255 * 128 = 32640
            second = product(2 * pair + 1, place)
            if taps % 2:
                second = T.if_then_else(2 * pair + 1 < taps, second, T.int32(0))
            return te.sum(T.max(T.min(first + second, T.int32(_GREATEST)), T.int32(_LEAST)), axis=pair)

        batch, sample = data_layout.index("N"), _integers(call, "sample")
        shape = [*sample[:batch], data.shape[batch], *sample[batch:]]
        return te.compute(shape, element, name="pair_sums")

    return builder.call_te(compute, *call.args)


define_tir_op(
    "torch.pair_saturated_sums",
    "sums of products that saturate to int16 in pairs",
    ("data", "kernel"),
    lambda call, _builder: TensorType(_shape(call), "int32"),
    _legalize,
)
