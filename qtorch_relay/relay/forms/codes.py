"""Ops of the dialect: as Relay's op of the same name where that is near PyTorch, with what it costs.

What has no form here, or none for its arithmetic, is written as its canonicalization: qnn.avg_pool2d with PyTorch's
arithmetic (Relay's truncates), qnn.requantize_add and qnn.choose_qparams (Relay has none).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant
from qtorch_relay.qnn.op_def import Operands
from qtorch_relay.qnn.unary import FUNCTIONS, relay_table
from qtorch_relay.qparams import code_range, is_identity
from qtorch_relay.relay.forms.gathering import table_of
from qtorch_relay.relay.forms.layers import with_gaps
from qtorch_relay.relay.registry import qnn_form
from qtorch_relay.relay.writer import Writer

PYTORCH_REQUANTIZE = ("accumulator", "real")
TIES = "codes at a rounding tie of the quotient: Relay rounds half away from zero, and divides where PyTorch multiplies"


# ---- Relay's own ops: the same operands, the same attributes


def _operand(writer: Writer, operands: Operands, name: str) -> str:
    """Returns an operand's text; a vector of scales or zero points becomes a parameter named after it."""
    value = operands[name]
    if not is_constant(value):
        return writer.operand(value)
    array = constant_array(value)
    return writer.constant(array.reshape(()) if array.size == 1 else array, name)


def direct(
    writer: Writer, operands: Operands, attributes: Sequence[str], but: dict[str, str] | None = None, **given: Any
) -> str:
    """Returns a call of Relay's op of the same name.

    but: operands that are written otherwise; given: attributes with other values than the op's.
    """
    texts = [(but or {}).get(name) or _operand(writer, operands, name) for name in operands.op.operands]
    values = {name: given.get(name, operands.attrs.get(name)) for name in (*attributes, *given)}
    written = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return writer.op(operands.op.name, *texts, **written)


def _all_constant(*names: str) -> Any:
    return lambda operands: all(is_constant(operands[name]) for name in names)


def relay_form(*ops: str, attributes: Sequence[str] = (), **options: Any) -> None:
    """Registers ops that are written as they are."""
    qnn_form(*ops, becomes="the same op", **options)(partial(_direct, attributes=attributes))


def _direct(writer: Writer, operands: Operands, attributes: Sequence[str]) -> str:
    return direct(writer, operands, attributes)


_CONV = (
    *("strides", "padding", "dilation", "groups", "channels", "kernel_size", "data_layout", "kernel_layout"),
    *("out_layout", "out_dtype"),
)

relay_form("qnn.conv2d", attributes=_CONV, applies=lambda operands: operands.attrs["accumulation"] == "s32")
qnn_form(
    "qnn.conv2d",
    becomes="the same op",
    cost="codes of depthwise windows in which FBGEMM saturates to int16: Relay's sum is exact",
)(partial(_direct, attributes=_CONV))
relay_form("qnn.subtract", attributes=("lhs_axis", "rhs_axis"))
relay_form("qnn.add", "qnn.mul", attributes=("lhs_axis", "rhs_axis"), arithmetics=("relay",))
relay_form("qnn.leaky_relu", attributes=("alpha",))
relay_form("qnn.softmax", attributes=("axis",))
relay_form(*(f"qnn.{function}" for function in FUNCTIONS))
relay_form("qnn.simulated_quantize", attributes=("axis",))
relay_form("qnn.concatenate", attributes=("axis",), arithmetics=("relay",))
relay_form(
    "qnn.avg_pool2d",
    attributes=(
        "pool_size", "strides", "dilation", "padding", "layout", "out_layout", "ceil_mode", "count_include_pad",
    ),
    arithmetics=("relay",),
)  # fmt: skip
relay_form(
    "qnn.requantize",
    attributes=("axis", "rounding", "compute_dtype", "out_dtype"),
    arithmetics=("relay",),
    applies=lambda operands: operands.attrs["rounding"] != "TONEAREST_EVEN",
)
relay_form("qnn.quantize", attributes=("axis", "out_dtype"), arithmetics=("relay",))
relay_form(
    "qnn.dequantize",
    attributes=("axis", "out_dtype"),
    arithmetics=("relay",),
    applies=lambda operands: operands.dtype("data") != "int32",
)
_TRANSPOSED_CONV = (
    *("channels", "kernel_size", "strides", "padding", "output_padding", "dilation", "groups", "data_layout"),
    *("kernel_layout", "out_layout", "out_dtype"),
)


def _has_gaps_of_one_code(operands: Operands) -> bool:
    zero_points = operands.constant("kernel_zero_point")
    return max(operands.attrs["dilation"]) == 1 or bool((zero_points == zero_points.flat[0]).all())


@qnn_form(
    "qnn.conv2d_transpose",
    becomes="the same op; of a kernel with gaps (`nn.pad`) where it is dilated",
    applies=_has_gaps_of_one_code,
)
def conv2d_transpose(writer: Writer, operands: Operands) -> str:
    """Relay's has no dilation."""
    attrs = operands.attrs
    if max(attrs["dilation"]) == 1:
        return direct(writer, operands, _TRANSPOSED_CONV)
    gap = int(operands.constant("kernel_zero_point").flat[0])
    more = with_gaps(writer, operands["weight"], attrs["dilation"], gap)
    return direct(writer, operands, _TRANSPOSED_CONV, {"weight": more.pop("kernel")}, **more)


@qnn_form("qnn.batch_matmul", becomes="the same op")
def batch_matmul(writer: Writer, operands: Operands) -> str:
    """Relay's has flags for the layout of its sides; its default is ours."""
    return direct(writer, operands, ("out_dtype",), transpose_a=False, transpose_b=True)


@qnn_form("qnn.simulated_dequantize", becomes="the same op")
def simulated_dequantize(writer: Writer, operands: Operands) -> str:
    """Relay's has qnn.dequantize's attributes."""
    return direct(writer, operands, ("axis",), out_dtype="float32")


@qnn_form("qnn.dense", becomes="the same op, with `reshape` around it for more than two dimensions")
def dense(writer: Writer, operands: Operands) -> str:
    """Relay's is for two dimensions."""
    shape, units = operands.shape("data"), operands.attrs["units"]
    if len(shape) == 2:
        return direct(writer, operands, ("units", "out_dtype"))
    rows = math.prod(shape[:-1])
    data = writer.emit(
        writer.op("reshape", writer.operand(operands["data"]), newshape=[rows, shape[-1]], allowzero=False)
    )
    product = writer.emit(direct(writer, operands, ("units", "out_dtype"), {"data": data}))
    return writer.op("reshape", product, newshape=[*shape[:-1], units], allowzero=False)


# ---- PyTorch's arithmetic, as the nearest of Relay's


def _quantizes_to_8_bits(operands: Operands) -> bool:
    return operands.attrs["out_dtype"] != "int32" and is_constant(operands["output_scale"])


@qnn_form(
    "qnn.quantize",
    arithmetics=("fused", "rounded"),
    becomes="`qnn.quantize`",
    cost=TIES,
    applies=_quantizes_to_8_bits,
)
def quantize(writer: Writer, operands: Operands) -> str:
    """clamp(half_away(x / scale) + zero_point)"""
    return direct(writer, operands, ("axis", "out_dtype"))


@qnn_form(
    "qnn.requantize",
    arithmetics=PYTORCH_REQUANTIZE,
    becomes="`nn.bias_add` of an int32 bias (if there is one), `qnn.requantize`",
    cost="the float bias is rounded to a multiple of input_scale * kernel_scale: codes that near to a "
    "rounding tie, about (input_scale * kernel_scale / output_scale) / 4 of them; ties go away from zero",
    applies=_all_constant("input_scale", "output_scale", "output_zero_point"),
)
def requantize(writer: Writer, operands: Operands) -> str:
    """The bias as int32, then requantize with the rounding and compute type that the options say."""
    bias = integer_bias(writer, operands)
    data = writer.operand(operands["data"])
    axis = operands.attrs["axis"] % len(operands.shape("data"))
    if bias is not None:
        channels = operands.shape("data")[axis]
        name = writer.parameter(f"{writer.layer}_bias_s32", np.broadcast_to(bias, (channels,)).copy())
        data = writer.emit(writer.op("nn.bias_add", data, name, axis=axis))
    options = writer.options
    return direct(
        writer,
        operands,
        (),
        {"data": data},
        axis=axis,
        rounding=options.relay_rounding,
        compute_dtype=options.relay_compute_dtype,
        out_dtype=operands.attrs["out_dtype"],
    )


def integer_bias(writer: Writer, operands: Operands) -> np.ndarray[Any, Any] | None:
    """Returns round(bias / (input_scale * kernel_scale)) as int32, None if it is 0 everywhere.

    "accumulator" adds addend * addend_factor to the sum; "real" adds addend to sum * input_factor * kernel_factor.
    """
    addend = writer.array(operands["addend"])
    assert addend is not None
    if operands.attrs["arithmetic"] == "accumulator":
        scaled = addend.astype(np.float64) * operands.constant("addend_factor").astype(np.float64)
    else:
        scaled = addend.astype(np.float64) / (
            operands.constant("input_factor").astype(np.float64) * operands.constant("kernel_factor").astype(np.float64)
        )
    rounded = np.clip(np.rint(scaled), -(2.0**31), 2.0**31 - 1).astype(np.int32).reshape(-1)
    return rounded if rounded.any() else None


@qnn_form(
    "qnn.add",
    arithmetics=("float32", "fixed_point"),
    becomes="`qnn.dequantize` of both sides, `add`, `qnn.quantize`",
    cost=TIES,
)
def add(writer: Writer, operands: Operands) -> str:
    """The sum of real values, rounded once; Relay's own qnn.add requantizes both sides first, and rounds twice."""
    real = [
        writer.emit(
            writer.op(
                "qnn.dequantize",
                *(_operand(writer, operands, name) for name in (side, f"{side}_scale", f"{side}_zero_point")),
                axis=-1,
                out_dtype="float32",
            )
        )
        for side in ("lhs", "rhs")
    ]
    total = writer.emit(writer.op("add", *real))
    target = (_operand(writer, operands, f"output_{name}") for name in ("scale", "zero_point"))
    return writer.op("qnn.quantize", total, *target, axis=-1, out_dtype=operands.dtype("lhs"))


@qnn_form(
    "qnn.mul",
    arithmetics=("float32",),
    becomes="`qnn.mul`",
    cost="codes at a rounding tie: the build's requantize_config says how Relay rounds",
)
def mul(writer: Writer, operands: Operands) -> str:
    """requantize of the int32 product"""
    return direct(writer, operands, ("lhs_axis", "rhs_axis"))


@qnn_form(
    "qnn.concatenate",
    arithmetics=("lookup",),
    becomes="`concatenate`; inputs of other parameters go through a table of 256 codes (`take`) first",
)
def concatenate(writer: Writer, operands: Operands) -> str:
    """Each input's way to the output's parameters is one table, whatever rounding it stands for."""
    fields = operands["data"].fields
    pieces = []
    for field, table in zip(fields, operands.constant("tables"), strict=True):
        codes, dtype = writer.operand(field), str(field.ty.dtype)
        pieces.append(codes if is_identity(table) else writer.emit(table_of(writer, codes, dtype, table)))
    return writer.op("concatenate", writer.tuple(pieces), axis=operands.attrs["axis"])


# ---- unary ops on codes


def _same_as_relays(operands: Operands) -> bool:
    """Says whether Relay's own table of the function is PyTorch's, code for code."""
    function, table = operands.attrs["function"], operands.constant("table")
    if function not in FUNCTIONS or str(table.dtype) != operands.dtype("data"):
        return False
    own = relay_table(
        function,
        operands.dtype("data"),
        operands.scalar("input_scale"),
        int(operands.scalar("input_zero_point")),
        operands.scalar("output_scale"),
        int(operands.scalar("output_zero_point")),
    )
    return bool((own == table).all())


@qnn_form(
    "qnn.lookup",
    becomes="`qnn.sigmoid`, `qnn.tanh`, `qnn.hardswish`, ... where Relay's own table is PyTorch's",
    cost="none if the build's libm rounds as here: the table is made when the text is built",
    applies=_same_as_relays,
    on_this_machine=True,
)
def unary(writer: Writer, operands: Operands) -> str:
    """Relay's op of the function."""
    names = ("data", "input_scale", "input_zero_point", "output_scale", "output_zero_point")
    return writer.op(f"qnn.{operands.attrs['function']}", *(_operand(writer, operands, name) for name in names))


def _bounds(operands: Operands) -> tuple[int, int] | None:
    """Returns the bounds of a table that only clamps, None for any other."""
    table, dtype = operands.constant("table"), operands.dtype("data")
    low, high = code_range(dtype)
    bounds = int(table.min()), int(table.max())
    clamped = np.clip(np.arange(low, high + 1), *bounds)
    return bounds if str(table.dtype) == dtype and (table == clamped).all() else None


@qnn_form("qnn.lookup", becomes="`clip` of the codes where the table only clamps (relu6, hardtanh, clamp)",
          applies=lambda operands: _bounds(operands) is not None)  # fmt: skip
def clamp(writer: Writer, operands: Operands) -> str:
    """clip"""
    bounds = _bounds(operands)
    assert bounds is not None
    return writer.op("clip", writer.operand(operands["data"]), a_min=float(bounds[0]), a_max=float(bounds[1]))


@qnn_form("qnn.lookup", becomes="else `take` from PyTorch's table of 256 codes")
def lookup(writer: Writer, operands: Operands) -> str:
    """table[code - least code]"""
    return table_of(writer, writer.operand(operands["data"]), operands.dtype("data"), operands.constant("table"))
