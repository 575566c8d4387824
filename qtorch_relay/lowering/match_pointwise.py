"""What one kernel can do among quantize, dequantize, add, mul, lookup and pools, with a clamp of the codes after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qtorch_relay._tvm import is_constant
from qtorch_relay.kernels import (
    AddSpec,
    AvgPool2dSpec,
    ConcatenateSpec,
    Conv2dAddSpec,
    Conv2dSpec,
    DequantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MaxPool2dSpec,
    MulSpec,
    Piece,
    QuantizeSpec,
)
from qtorch_relay.lowering.match import Clamp, KernelCall, Program, code_dtype, follow_clamp, match_conv2d
from qtorch_relay.lowering.rebuild import op_name
from qtorch_relay.qnn.conv import four_paddings
from qtorch_relay.qnn.op_def import Operands, static_shape
from qtorch_relay.qparams import PerTensor, code_range, is_identity


def _qparams(operands: Operands, side: str, dtype: str) -> PerTensor:
    scale, zero_point = operands.scalar(f"{side}_scale"), operands.scalar(f"{side}_zero_point")
    return PerTensor(float(scale), int(zero_point), dtype)


def _why_not_one_scale(operands: Operands, side: str, dtype: str) -> str | None:
    """Returns why a quantize or dequantize is none of 8-bit codes with one scale known here, or None."""
    names = (f"{side}_scale", f"{side}_zero_point")
    if dtype == "int32":
        return "its codes are int32"
    if not all(is_constant(operands[name]) for name in names):
        return "its scale or zero point is a run-time value"
    return None if all(operands.constant(name).size == 1 for name in names) else "its scales are per channel"


def match_quantize(program: Program, binding: Any) -> KernelCall | str:
    """qnn.quantize, together with the permutation to channels-last if that is all that reads it."""
    operands = Operands(binding.value)
    refused = _why_not_one_scale(operands, "output", operands.attrs["out_dtype"])
    if refused is not None or operands.attrs["arithmetic"] != "fused":
        return refused or f"it quantizes with arithmetic {operands.attrs['arithmetic']}"
    dtype = code_dtype(operands.attrs["out_dtype"])
    user = program.only_user(binding.var)
    permuted = user is not None and op_name(user.value) == "relax.permute_dims" and _is_to_channels_last(user.value)
    spec = QuantizeSpec(operands.shape("data"), dtype, channels_last=permuted)
    packed = (_qparams(operands, "output", dtype),)
    if permuted:
        return KernelCall(spec, (operands["data"],), packed, user, (binding,))
    return KernelCall(spec, (operands["data"],), packed, binding, ())


def _is_to_channels_last(call: Any) -> bool:
    axes = call.attrs.axes
    return axes is not None and [int(axis) for axis in axes] == [0, 2, 3, 1]


def match_dequantize(program: Program, binding: Any) -> KernelCall | str:
    """qnn.dequantize with one scale."""
    operands = Operands(binding.value)
    dtype = operands.dtype("data")
    refused = _why_not_one_scale(operands, "input", dtype)
    if refused is not None or operands.attrs["arithmetic"] != "relay":
        return refused or f"it dequantizes with arithmetic {operands.attrs['arithmetic']}"
    spec = DequantizeSpec(operands.shape("data"), code_dtype(dtype))
    return KernelCall(spec, (operands["data"],), (_qparams(operands, "input", dtype),), binding, ())


def match_conv2d_add(program: Program, binding: Any) -> KernelCall | None:
    """qnn.conv2d up to its codes, the qnn.add that alone reads them, and a clamp.

    None where there is no such sum, or its other operand is not yet there.
    """
    conv = match_conv2d(program, binding)
    if not isinstance(conv, KernelCall) or type(conv.spec) is not Conv2dSpec:
        return None
    user = program.only_user(conv.result.var)
    if user is None or op_name(user.value) != "qnn.add":
        return None
    add = match_add(program, user)
    if not isinstance(add, KernelCall) or not isinstance(add.spec, AddSpec):
        return None
    side = [operand.same_as(conv.result.var) for operand in add.inputs].index(True)
    other = add.inputs[1 - side]
    if not program.comes_before(other, binding.var):
        return None  # of two convolutions the later one adds
    spec = conv.spec.to(Conv2dAddSpec)
    lhs, rhs, *rest = add.pack_arguments
    qparams = (lhs, rhs) if side == 0 else (rhs, lhs)
    inner = (*conv.inner, conv.result, *add.inner)
    return KernelCall(spec, (*conv.inputs, other), (*conv.pack_arguments, *qparams, *rest), add.result, inner)


def match_add(program: Program, binding: Any) -> KernelCall | str:
    """qnn.add of one shape with PyTorch's arithmetic, and a clamp."""
    operands = Operands(binding.value)
    arithmetic = operands.attrs["arithmetic"]
    kind = {"float32": AddSpec, "fixed_point": FixedAddSpec}.get(arithmetic)
    if kind is None or operands.attrs["rounding"] != "TONEAREST_EVEN":
        return f"it adds with arithmetic {arithmetic}, rounding {operands.attrs['rounding']}"
    shape = operands.shape("lhs")
    if operands.shape("rhs") != shape:
        return f"its operands {shape} and {operands.shape('rhs')} broadcast"
    return _binary(program, binding, operands, kind(shape, code_dtype(operands.dtype("lhs"))), ("lhs", "rhs"))


def match_mul(program: Program, binding: Any) -> KernelCall | str:
    """qnn.mul of one shape, or of a map with one number per channel on either side, and a clamp."""
    operands = Operands(binding.value)
    if operands.attrs["arithmetic"] != "float32" or operands.attrs["rounding"] != "TONEAREST_EVEN":
        return f"it multiplies with arithmetic {operands.attrs['arithmetic']}, rounding {operands.attrs['rounding']}"
    dtype = code_dtype(operands.dtype("lhs"))
    for map_side, other in (("lhs", "rhs"), ("rhs", "lhs")):
        shape, factor = operands.shape(map_side), operands.shape(other)
        if shape == factor:
            return _binary(program, binding, operands, MulSpec(shape, dtype), (map_side, other))
        if len(shape) == 4 and factor == (shape[0], 1, 1, shape[3]):
            # the product of codes and of scales does not depend on the order of the operands
            return _binary(program, binding, operands, MulSpec(shape, dtype, per_channel=True), (map_side, other))
    return f"its operands {operands.shape('lhs')} and {operands.shape('rhs')} broadcast in another way than by channel"


def _binary(program: Program, binding: Any, operands: Operands, spec: Any, sides: tuple[str, str]) -> KernelCall:
    dtype = operands.dtype("lhs")
    clamp = follow_clamp(program, binding, dtype)
    packed = (*(_qparams(operands, side, dtype) for side in (*sides, "output")), clamp.low, clamp.high)
    return KernelCall(spec, tuple(operands[side] for side in sides), packed, clamp.result, clamp.inner)


def match_lookup(program: Program, binding: Any) -> KernelCall:
    """qnn.lookup."""
    operands = Operands(binding.value)
    spec = LookupSpec(operands.shape("data"), code_dtype(operands.dtype("data")), code_dtype(operands.dtype("table")))
    return KernelCall(spec, (operands["data"],), (operands.constant("table"),), binding, ())


def match_concatenate(program: Program, binding: Any) -> KernelCall | str:
    """qnn.concatenate by tables, and a clamp, which becomes part of the tables."""
    operands = Operands(binding.value)
    if operands.attrs["arithmetic"] != "lookup":
        return f"it concatenates with arithmetic {operands.attrs['arithmetic']}"
    fields, tables = list(operands["data"].fields), operands.constant("tables")
    dtype = code_dtype(str(fields[0].ty.dtype))
    clamp = follow_clamp(program, binding, dtype)
    clamped = np.clip(tables, clamp.low, clamp.high).astype(tables.dtype)
    used = [None if is_identity(table) else table for table in clamped]
    return _concatenation(program, fields, operands.attrs["axis"], used, clamp)


def match_concat(program: Program, binding: Any) -> KernelCall | None:
    """concat of codes as they are."""
    fields = list(binding.value.args[0].fields)
    dtype = str(fields[0].ty.dtype)
    if dtype not in ("uint8", "int8"):
        return None
    clamp = Clamp(*code_range(dtype), binding, ())
    return _concatenation(program, fields, int(binding.value.attrs.axis), [None] * len(fields), clamp)


def _concatenation(
    program: Program, fields: list[Any], axis: int, tables: Sequence[np.ndarray[Any, Any] | None], clamp: Clamp
) -> KernelCall:
    """Returns the kernel call for inputs that go through tables of 256 codes, or None as they are.

    A slice along the axis is read where it lies; its own copy is dead code if nothing else reads it.
    """
    axis %= len(static_shape(fields[0]))
    dtype = code_dtype(str(fields[0].ty.dtype))
    sources: list[Any] = []
    pieces: list[Piece] = []
    used: list[np.ndarray[Any, Any]] = []
    for field, table in zip(fields, tables, strict=True):
        source, begin = _sliced_from(program, field, axis)
        number = next((index for index, known in enumerate(sources) if known.same_as(source)), len(sources))
        if number == len(sources):
            sources.append(source)
        place = None
        if table is not None:
            place = next((i for i, known in enumerate(used) if np.array_equal(known, table)), len(used))
            if place == len(used):
                used.append(table)
        pieces.append(Piece(number, begin, begin + static_shape(field)[axis], place))
    shapes = tuple(static_shape(source) for source in sources)
    spec = ConcatenateSpec(shapes, axis, tuple(pieces), dtype, len(used))
    return KernelCall(spec, tuple(sources), (np.array(used, dtype),), clamp.result, clamp.inner)


def _sliced_from(program: Program, value: Any, axis: int) -> tuple[Any, int]:
    """Returns the tensor a value is a slice of along one axis, and where the slice begins; else the value and 0."""
    definition = program.definition(value)
    if definition is None or op_name(definition.value) != "relax.strided_slice":
        return value, 0
    data, axes, begins, _, *steps = definition.value.args
    rank = len(static_shape(data))
    if [int(a) % rank for a in axes.fields] != [axis] or any(int(step) != 1 for s in steps for step in s.fields):
        return value, 0
    begin, extent = int(begins.fields[0]), static_shape(data)[axis]
    return data, max(begin + extent, 0) if begin < 0 else min(begin, extent)


def match_max_pool2d(program: Program, binding: Any) -> KernelCall | str | None:
    """max_pool2d of channels-last codes."""
    call = binding.value
    data, attrs = call.args[0], call.attrs
    dtype = str(data.ty.dtype)
    if dtype not in ("uint8", "int8"):
        return None
    if str(attrs.layout) != "NHWC":
        return "its channels do not lie together in memory"
    batch, height, width, channels = static_shape(data)
    spec = MaxPool2dSpec(
        batch,
        height,
        width,
        channels,
        _pair(attrs.pool_size),
        _pair(attrs.strides),
        four_paddings([int(value) for value in attrs.padding]),
        code_dtype(dtype),
        _pair(attrs.dilation),
        bool(attrs.ceil_mode),
    )
    return KernelCall(spec, (data,), (), binding, ())


def match_avg_pool2d(program: Program, binding: Any) -> KernelCall | str:
    """qnn.avg_pool2d of channels-last codes."""
    operands = Operands(binding.value)
    attrs = operands.attrs
    if attrs["layout"] != "NHWC":
        return "its channels do not lie together in memory"
    if attrs["arithmetic"] == "relay":
        return "it averages with arithmetic relay"
    batch, height, width, channels = operands.shape("data")
    spec = AvgPool2dSpec(
        batch,
        height,
        width,
        channels,
        attrs["pool_size"],
        attrs["strides"],
        attrs["padding"],
        code_dtype(operands.dtype("data")),
        arithmetic=attrs["arithmetic"],
    )
    factor: np.ndarray[Any, Any] = operands.constant("factor")
    return KernelCall(spec, (operands["data"],), (factor, int(operands.scalar("input_zero_point"))), binding, ())


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(value) for value in values)
    return first, second
