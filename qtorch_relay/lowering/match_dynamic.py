"""What one kernel can do in a dynamically quantized layer, whose scale and zero point are known only at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import constant_array, is_constant
from qtorch_relay.kernels import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
from qtorch_relay.lowering.match import KernelCall, Program, code_dtype, why_not_weights
from qtorch_relay.lowering.rebuild import op_name
from qtorch_relay.qnn.op_def import CODES_8BIT, Operands, static_shape


def match_choose_qparams(_program: Program, binding: Any) -> KernelCall:
    """qnn.choose_qparams."""
    operands = Operands(binding.value)
    attrs = operands.attrs
    spec = ChooseQparamsSpec(operands.shape("data"), attrs["quant_min"], attrs["quant_max"], attrs["arithmetic"])
    return KernelCall(spec, (operands["data"],), (), binding, ())


def match_dynamic_quantize(_program: Program, binding: Any) -> KernelCall | str:
    """qnn.quantize of 8-bit codes with one scale and one zero point, both run-time values."""
    operands = Operands(binding.value)
    parameters = operands["output_scale"], operands["output_zero_point"]
    arithmetic = operands.attrs["arithmetic"]
    if any(is_constant(value) for value in parameters):
        return "only one of its scale and zero point is a run-time value"
    if any(static_shape(value) for value in parameters):
        return "its scales are per channel"
    if operands.attrs["out_dtype"] not in CODES_8BIT:
        return f"its codes are {operands.attrs['out_dtype']}"
    if operands.dtype("output_scale") != "float32" or arithmetic not in ("fused", "rounded"):
        return f"it quantizes with arithmetic {arithmetic} and a {operands.dtype('output_scale')} scale"
    spec = DynamicQuantizeSpec(operands.shape("data"), code_dtype(operands.attrs["out_dtype"]), arithmetic)
    return KernelCall(spec, (operands["data"],), (), binding, (), shared=parameters)


def match_dynamic_dense(program: Program, binding: Any) -> KernelCall | str:
    """qnn.dense with a run-time zero point up to its floats, and a relu."""
    operands = Operands(binding.value)
    refused = why_not_weights(operands, "weight")
    if refused is not None:
        return refused
    if operands.dtype("data") != "uint8" or static_shape(operands["input_zero_point"]):
        return "its run-time parameters are not those of one uint8 tensor"
    user = program.only_user(binding.var)
    if user is None or op_name(user.value) != "qnn.dequantize":
        return "its int32 sums are used as they are"
    dequantize = Operands(user.value)
    units = operands.shape("weight")[0]
    scaling = _scaling(program, dequantize, units)
    if isinstance(scaling, str):
        return scaling
    scale, factor = scaling
    inner = [binding]
    product = program.definition(dequantize["input_scale"])
    if product is not None:
        reader = program.only_user(product.var)
        inner += [product] if reader is not None and reader.var.same_as(user.var) else []
    result = user
    activation = program.only_user(user.var)
    if activation is not None and op_name(activation.value) == "relax.nn.relu":
        inner.append(user)
        result = activation
    relu = result is activation
    spec = DynamicDenseSpec(operands.shape("data"), units, dequantize.attrs["arithmetic"], relu)
    packed = (constant_array(operands["weight"]), factor, _vector(dequantize.constant("addend"), units))
    shared = (operands["input_zero_point"], scale)
    return KernelCall(spec, (operands["data"],), packed, result, tuple(inner), shared=shared)


def _scaling(program: Program, dequantize: Operands, units: int) -> tuple[Any, npt.NDArray[np.float32]] | str:
    """Returns the run-time scale of the data, and the weight's scales [units], of sums made real; or why not."""
    arithmetic = dequantize.attrs["arithmetic"]
    if arithmetic not in ("fused", "rounded", "real"):
        return f"its sums are dequantized with arithmetic {arithmetic}"
    if not is_constant(dequantize["input_zero_point"]) or dequantize.constant("input_zero_point").any():
        return "its sums have a zero point"
    if not is_constant(dequantize["addend"]):
        return "its bias is not constant"
    rank = len(dequantize.shape("data"))
    if dequantize.attrs["axis"] % rank != rank - 1:
        return "its channels do not lie together in memory"
    if arithmetic == "real":
        scale, factor = dequantize["input_factor"], dequantize["kernel_factor"]
    else:
        product = program.definition(dequantize["input_scale"])
        if product is None or op_name(product.value) != "relax.multiply":
            return "the scale of its sums is no product of its data's and its weights'"
        scale, factor = product.value.args
    if is_constant(scale) or static_shape(scale) or not is_constant(factor):
        return "the scale of its sums is not a run-time number times constants"
    return scale, _vector(constant_array(factor), units)


def _vector(numbers: npt.NDArray[Any], units: int) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.broadcast_to(numbers.astype(np.float32).reshape(-1), (units,)))
