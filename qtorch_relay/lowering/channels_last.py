"""convert_to_channels_last: NCHW outside, NHWC inside.

The int8 kernels read four neighbouring channels as one 32-bit lane, so channels must lie together in memory. Every
value keeps
up to two forms, the planar one of PyTorch's program and a channels-last twin; each op takes the form it can work on,
and a
permutation is emitted only where the other form is asked for. Scales and zero points do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qtorch_relay._tvm import Call, constant_array, is_constant, relax
from qtorch_relay.lowering.rebuild import bindings_of, op_name, rebuild_main
from qtorch_relay.qnn.op_def import Operands, static_shape


def to_last(rank: int, channels: int = 1) -> list[int]:
    """Returns the permutation [N, C..., S...] -> [N, S..., C...] for this many channel dimensions."""
    return [0, *range(1 + channels, rank), *range(1, 1 + channels)]


def to_planar(rank: int, channels: int = 1) -> list[int]:
    """Returns the inverse of to_last."""
    return [int(axis) for axis in np.argsort(to_last(rank, channels))]


class _Forms:
    """The forms in which each variable of the old function exists in the new one."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self._planar: dict[Any, Any] = {}
        self._last: dict[Any, Any] = {}
        self._channels: dict[Any, int] = {}

    def set_planar(self, var: Any, expr: Any) -> None:
        self._planar[var] = expr

    def set_last(self, var: Any, expr: Any, channels: int = 1) -> None:
        self._last[var] = expr
        self._channels[var] = channels

    def has_last(self, expr: Any, channels: int = 1) -> bool:
        return not is_constant(expr) and expr in self._last and self._channels[expr] == channels

    def planar(self, expr: Any) -> Any:
        """Returns the planar form of a variable, constant or tuple, made from the twin if need be."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.planar(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.planar(expr.tuple_value), expr.index)
        if not isinstance(expr, relax.Var):
            return expr
        if expr not in self._planar:
            twin = self._last[expr]
            axes = to_planar(len(static_shape(twin)), self._channels[expr])
            self._planar[expr] = self.builder.emit(relax.op.permute_dims(twin, axes), f"{expr.name}_nchw")
        return self._planar[expr]

    def last(self, expr: Any) -> Any:
        """Returns the channels-last form of a variable or constant of rank 4."""
        if is_constant(expr):
            array = constant_array(expr)
            return expr if array.ndim < 4 else relax.const(array.transpose(to_last(4)), str(array.dtype))
        if not self.has_last(expr):
            twin = relax.op.permute_dims(self.planar(expr), to_last(4))
            self.set_last(expr, self.builder.emit(twin, f"{expr.name}_nhwc"))
        return self._last[expr]

    def existing_last(self, expr: Any) -> Any:
        """Returns the twin that has_last found."""
        return self._last[expr]


PLANAR = 0  # a rule's count of channel dimensions when its result has no layout: [N, C]

Rule = Callable[[_Forms, Any], tuple[Any, int] | None]


def convert_to_channels_last(mod: Any) -> Any:
    """Moves convolutions, pools and what lies between them to channels-last.

    Before: c = qnn.conv2d(x, w, ..., data_layout="NCHW"); r = qnn.requantize(c, ..., axis=1)
    After:  t = R.permute_dims(x, [0, 2, 3, 1]); c = qnn.conv2d(t, w, ..., data_layout="NHWC");
            r = qnn.requantize(c, ..., axis=3)
    """
    return rebuild_main(mod, _convert)


def _convert(builder: Any, main: Any) -> Any:
    forms = _Forms(builder)
    for param in main.params:
        forms.set_planar(param, param)
    for binding in bindings_of(main):
        call, name = binding.value, binding.var.name
        rule = RULES.get(op_name(call))
        converted = rule(forms, call) if rule is not None else None
        if converted is not None:
            expr, channels = converted
            var = builder.emit(expr, name)
            if channels == PLANAR:
                forms.set_planar(binding.var, var)
            else:
                forms.set_last(binding.var, var, channels)
        else:
            forms.set_planar(binding.var, builder.emit(_planar_value(forms, call), name))
    return forms.planar(main.body.body)


def _planar_value(forms: _Forms, value: Any) -> Any:
    if not isinstance(value, Call):
        return forms.planar(value)
    return Call(value.op, [forms.planar(argument) for argument in value.args], value.attrs, value.ty_args)


# ---- rules: (forms, call) -> (channels-last call, channel dimensions), or None to keep the planar form


def _rank(expr: Any) -> int:
    return len(static_shape(expr))


def _with(call: Any, args: list[Any], **changes: Any) -> Any:
    """Returns a qnn call with other operands and some attributes changed."""
    return Call(call.op, args, {**dict(call.attrs.items()), **changes})


def _others(forms: _Forms, call: Any) -> list[Any]:
    """Returns the operands after the first, which have no channels-last twin: weights, and parameters that are
    constants or run-time values."""
    return [forms.planar(argument) for argument in call.args[1:]]


def _conv2d(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    kernel_zero_point = call.args[3]
    if str(call.attrs["data_layout"]) != "NCHW" or constant_array(kernel_zero_point).any():
        return None
    return _with(call, [forms.last(call.args[0]), *_others(forms, call)], data_layout="NHWC"), 1


def _max_pool2d(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    attrs = call.attrs
    if str(attrs.layout) != "NCHW":
        return None
    pool = relax.op.nn.max_pool2d(
        forms.last(call.args[0]),
        pool_size=tuple(attrs.pool_size),
        strides=tuple(attrs.strides),
        padding=tuple(attrs.padding),
        dilation=tuple(attrs.dilation),
        ceil_mode=bool(attrs.ceil_mode),
        layout="NHWC",
    )
    return pool, 1


def _avg_pool2d(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    if str(call.attrs["layout"]) != "NCHW":
        return None
    return _with(call, [forms.last(call.args[0]), *_others(forms, call)], layout="NHWC"), 1


def _along_axis(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """Ops on one tensor with an axis attribute: requantize, dequantize."""
    data = call.args[0]
    if not forms.has_last(data):
        return None
    axis = int(call.attrs["axis"]) % 4
    return _with(call, [forms.existing_last(data), *_others(forms, call)], axis=to_last(4).index(axis)), 1


def _elementwise(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """Ops on variables of rank 4, and on constants that are read whole."""
    tensors = [argument for argument in call.args if isinstance(argument, relax.Var)]
    if not any(forms.has_last(tensor) for tensor in tensors) or any(_rank(tensor) != 4 for tensor in tensors):
        return None
    args = [forms.last(argument) if _is_rank4(argument) else argument for argument in call.args]
    return Call(call.op, args, call.attrs, call.ty_args), 1


def _broadcast(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """Elementwise ops that broadcast. A constant with fewer dimensions would do so along other ones in the twin."""
    constants = [constant_array(argument) for argument in call.args if is_constant(argument)]
    if any(array.ndim > 4 or (array.size > 1 and array.ndim != 4) for array in constants):
        return None
    return _elementwise(forms, call)


def _is_rank4(argument: Any) -> bool:
    return (isinstance(argument, relax.Var) or is_constant(argument)) and _rank(argument) == 4


def _concatenate(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """A concatenation along the axis as it lies in memory."""
    operands = Operands(call)
    fields = list(operands["data"].fields)
    if any(_rank(field) != 4 for field in fields) or not any(forms.has_last(field) for field in fields):
        return None
    axis = to_last(4).index(operands.attrs["axis"] % 4)
    return _with(call, [relax.Tuple([forms.last(field) for field in fields]), *call.args[1:]], axis=axis), 1


def _strided_slice(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    data = call.args[0]
    if not forms.has_last(data):
        return None
    axes = [to_last(4).index(int(axis.value) % 4) for axis in call.args[1].fields]
    bounds = [[int(v.value) for v in argument.fields] for argument in call.args[2:]]
    return relax.op.strided_slice(forms.existing_last(data), axes, *bounds), 1


def _reshape(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """Splits or merges channel dimensions inside the twin (channel shuffle), and flattens 1x1 maps without a
    permutation."""
    data = call.args[0]
    before, after = static_shape(data), tuple(int(extent) for extent in call.args[1].values)
    if len(before) == 4 and len(after) == 5 and forms.has_last(data):
        if after[0] == before[0] and after[3:] == before[2:]:
            return relax.op.reshape(forms.existing_last(data), (before[0], *before[2:], *after[1:3])), 2
    if len(before) == 4 and before[2:] == (1, 1) and after == before[:2] and forms.has_last(data):
        return relax.op.reshape(forms.existing_last(data), after), PLANAR
    if len(before) == 5 and len(after) == 4 and forms.has_last(data, channels=2):
        if after[0] == before[0] and after[2:] == before[3:]:
            return relax.op.reshape(forms.existing_last(data), (before[0], *before[3:], after[1])), 1
    return None


def _permute_dims(forms: _Forms, call: Any) -> tuple[Any, int] | None:
    """Swaps the two channel dimensions of a split twin."""
    data = call.args[0]
    axes = [int(axis) for axis in call.attrs.axes] if call.attrs.axes is not None else []
    if axes != [0, 2, 1, 3, 4] or not forms.has_last(data, channels=2):
        return None
    return relax.op.permute_dims(forms.existing_last(data), [0, 1, 2, 4, 3]), 2


RULES: dict[str, Rule] = {
    "qnn.conv2d": _conv2d,
    "qnn.avg_pool2d": _avg_pool2d,
    "qnn.requantize": _along_axis,
    "qnn.dequantize": _along_axis,
    "qnn.lookup": _elementwise,
    "qnn.add": _broadcast,
    "qnn.mul": _broadcast,
    "qnn.concatenate": _concatenate,
    "relax.add": _broadcast,
    "relax.maximum": _broadcast,
    "relax.minimum": _broadcast,
    "relax.nn.max_pool2d": _max_pool2d,
    "relax.strided_slice": _strided_slice,
    "relax.reshape": _reshape,
    "relax.permute_dims": _permute_dims,
}
