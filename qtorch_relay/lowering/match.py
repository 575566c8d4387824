"""Finds what one kernel can do at once: an int32 product, its bias, its requantization and a clamp of the codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import constant_array, is_constant
from qtorch_relay.kernels import (
    AccumulatorRequantize,
    Conv2dSpec,
    DenseSpec,
    PairSaturatedDepthwiseSpec,
    RealRequantize,
)
from qtorch_relay.kernels.spec import CodeDtype
from qtorch_relay.lowering.rebuild import op_name
from qtorch_relay.qnn.op_def import Operands
from qtorch_relay.qparams import code_range


class Program:
    """The bindings of main with their numbers and users, to follow a value to the only op that reads it."""

    def __init__(self, bindings: list[Any], users: dict[Any, list[Any]]) -> None:
        self.bindings = bindings
        self._users = users
        self._binding = {binding.var: binding for binding in bindings}
        self.number = {binding.var: number for number, binding in enumerate(bindings)}

    def only_user(self, var: Any) -> Any | None:
        """Returns the binding that alone reads a variable, None if there is another reader or none."""
        users = self._users.get(var, [])
        return users[0] if len(users) == 1 else None

    def comes_before(self, first: Any, second: Any) -> bool:
        """Says whether a value is bound before another; parameters and constants are there before all."""
        return self.number.get(first, -1) < self.number[second]

    def definition(self, var: Any) -> Any | None:
        """Returns the binding of a variable, None for a parameter."""
        return self._binding.get(var)


@dataclass(frozen=True)
class KernelCall:
    """One kernel in place of some bindings.

    spec selects the kernel; inputs are expressions of the old function, and so are those shared by all samples, which
    come next; pack_arguments go to the kernel's pack after the spec.
    result: the binding whose variable the kernel's output replaces. inner: bindings that are no longer computed.
    """

    spec: Any
    inputs: tuple[Any, ...]
    pack_arguments: tuple[Any, ...]
    result: Any
    inner: tuple[Any, ...]
    shared: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Clamp:
    """Codes clamped to [low, high] by a maximum with a constant after the op; result is the last binding."""

    low: int
    high: int
    result: Any
    inner: tuple[Any, ...]


def follow_clamp(program: Program, binding: Any, dtype: str) -> Clamp:
    """Returns the clamp that follows a binding of codes; the dtype's whole range if none does."""
    low, high = code_range(dtype)
    user = program.only_user(binding.var)
    if user is not None and op_name(user.value) == "relax.maximum":
        bound = user.value.args[1]
        if is_constant(bound) and constant_array(bound).size == 1:
            return Clamp(max(low, int(constant_array(bound).reshape(-1)[0])), high, user, (binding,))
    return Clamp(low, high, binding, ())


@dataclass(frozen=True)
class Requantized:
    """A conv2d or dense with everything up to its codes.

    bias_s32: added to the accumulator, or None. result: the binding whose value the kernel gives. inner: the bindings
    that vanish into it.
    """

    operands: Operands
    bias_s32: npt.NDArray[np.int32] | None
    params: AccumulatorRequantize | RealRequantize
    in_dtype: CodeDtype
    out_dtype: CodeDtype
    result: Any
    inner: tuple[Any, ...]


def match_requantized(program: Program, binding: Any) -> Requantized | str:
    """Returns what follows a qnn.conv2d or qnn.dense, or the reason why no kernel can take it."""
    operands = Operands(binding.value)
    weight = "kernel" if "kernel" in operands.op.operands else "weight"
    refused = why_not_weights(operands, weight)
    if refused is not None:
        return refused
    if not is_constant(operands["input_zero_point"]):
        return "its input's zero point is known only at run time"
    if operands.attrs.get("kernel_layout", "OIHW") != "OIHW":
        return f"its weights have layout {operands.attrs['kernel_layout']}; kernels take OIHW"
    channels = operands.shape(weight)[0]
    inner = [binding]
    user = program.only_user(binding.var)
    bias_s32 = None
    if user is not None and op_name(user.value) == "relax.add" and is_constant(user.value.args[1]):
        bias = constant_array(user.value.args[1])
        if bias.size > 1 and not bias.size == bias.shape[-1] == channels:
            return f"its int32 bias of shape {bias.shape} is not one number per channel"
        bias_s32 = bias.reshape(-1).astype(np.int32)
        inner.append(user)
        user = program.only_user(user.var)
    if user is None or op_name(user.value) != "qnn.requantize":
        return "its int32 sums are used as they are"
    requantize = Operands(user.value)
    reason = _why_not_requantize(requantize)
    if reason is not None:
        return reason
    clamp = follow_clamp(program, user, requantize.attrs["out_dtype"])
    params = _requantize_params(requantize, channels, clamp)
    if clamp.inner:
        inner.append(user)
    in_dtype, out_dtype = code_dtype(operands.dtype("data")), code_dtype(requantize.attrs["out_dtype"])
    return Requantized(operands, bias_s32, params, in_dtype, out_dtype, clamp.result, tuple(inner))


def why_not_weights(operands: Operands, weight: str) -> str | None:
    """Returns why no kernel takes the weights of a conv2d or dense, or None."""
    if not is_constant(operands[weight]):
        return "its weights are not constant"
    if operands.dtype(weight) != "int8":
        return "its weights are uint8; kernels take int8"
    if operands.constant("kernel_zero_point").any():
        return "its weights have a zero point other than 0"
    return None


def code_dtype(dtype: str) -> CodeDtype:
    """Returns a dtype that the dialect's checks have found to be one of 8-bit codes, typed so."""
    return cast(CodeDtype, dtype)


def _why_not_requantize(requantize: Operands) -> str | None:
    attrs = requantize.attrs
    if attrs["arithmetic"] not in ("accumulator", "real"):
        return f"it is requantized with arithmetic {attrs['arithmetic']}; kernels do accumulator and real"
    if requantize.constant("input_zero_point").any():
        return "its sums have a zero point"
    if not is_constant(requantize["addend"]):
        return "its bias is not constant"
    if attrs["axis"] % len(requantize.shape("data")) != len(requantize.shape("data")) - 1:
        return "its channels do not lie together in memory"
    return None


def _requantize_params(requantize: Operands, channels: int, clamp: Clamp) -> AccumulatorRequantize | RealRequantize:
    """Returns the kernel's constants, one per channel."""
    zero_point = int(requantize.scalar("output_zero_point"))

    def vector(name: str) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(np.broadcast_to(requantize.constant(name).astype(np.float32), (channels,)))

    if requantize.attrs["arithmetic"] == "accumulator":
        return AccumulatorRequantize(
            vector("addend"), vector("multiplier"), zero_point, clamp.low, clamp.high, vector("addend_factor")
        )
    return RealRequantize(
        float(requantize.scalar("input_factor")),
        vector("kernel_factor"),
        vector("addend"),
        float(requantize.scalar("output_factor")),
        zero_point,
        clamp.low,
        clamp.high,
    )


def match_conv2d(program: Program, binding: Any) -> KernelCall | str:
    """qnn.conv2d of channels-last codes up to its output codes."""
    found = match_requantized(program, binding)
    if isinstance(found, str):
        return found
    operands = found.operands
    attrs = operands.attrs
    if attrs["data_layout"] != "NHWC":
        return "its channels do not lie together in memory"
    kind = PairSaturatedDepthwiseSpec if attrs["accumulation"] == "s16_pairs" else Conv2dSpec
    batch, height, width, channels = operands.shape("data")
    weight = constant_array(operands["kernel"])
    spec = kind(
        batch,
        height,
        width,
        channels,
        weight.shape[0],
        weight.shape[2],
        weight.shape[3],
        attrs["strides"],
        attrs["padding"],
        attrs["dilation"],
        attrs["groups"],
        found.in_dtype,
        found.out_dtype,
        found.params.kind,
    )
    packed = (weight, int(operands.scalar("input_zero_point")), found.params, found.bias_s32)
    return KernelCall(spec, (operands["data"],), packed, found.result, found.inner)


def match_dense(program: Program, binding: Any) -> KernelCall | str:
    """qnn.dense of two dimensions up to its output codes."""
    found = match_requantized(program, binding)
    if isinstance(found, str):
        return found
    operands = found.operands
    shape = operands.shape("data")
    if len(shape) != 2:
        return f"its data has {len(shape)} dimensions; kernels take 2"
    weight = constant_array(operands["weight"])
    spec = DenseSpec(shape[0], shape[1], weight.shape[0], found.in_dtype, found.out_dtype, found.params.kind)
    packed = (weight, int(operands.scalar("input_zero_point")), found.params, found.bias_s32)
    return KernelCall(spec, (operands["data"],), packed, found.result, found.inner)
