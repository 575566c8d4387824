"""qnn.choose_qparams: the scale and zero point of a real tensor, from its least and greatest value when it runs."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import Expr, Operands, check_choice, check_dtype, define_op, tensor_type


def _choose_type(operands: Operands) -> Any:
    scale = "float64" if operands.attrs["arithmetic"] == "float64" else "float32"
    return relax.TupleType([tensor_type((), scale), tensor_type((), "int32")])


def _check_choose(operands: Operands) -> None:
    check_dtype(operands, "data", ("float32",))
    check_choice(operands, "arithmetic", CHOOSE_ARITHMETICS)
    low, high = operands.attrs["quant_min"], operands.attrs["quant_max"]
    if not -(2**15) <= low < high <= 2**15:
        raise VerifyError(f"qnn.choose_qparams: quant_min {low} must be below quant_max {high}, both within 2**15")


CHOOSE_ARITHMETICS = ("float32", "reciprocal", "float64")

_CHOOSE = define_op(
    "qnn.choose_qparams",
    ("data",),
    ("quant_min", "quant_max", "arithmetic"),
    _choose_type,
    _check_choose,
    "the scale and zero point that make quant_min..quant_max cover the data",
)


def choose_qparams(data: Expr, quant_min: int, quant_max: int, *, arithmetic: str = "float32") -> Expr:
    """qnn.choose_qparams (ours): (scale, zero_point int32) for the data's range, extended to hold 0.

    The scale is (high - low) / (quant_max - quant_min) in float64, not below 6.1e-5; an empty range gives 0.1.
    arithmetic "float32": it is rounded to float32 (fbgemm, qnnpack). "reciprocal": its reciprocal is, which is then
    inverted in float32 (onednn). "float64": it is left as it is (dynamic convolutions, which divide by it).
    Relay has no such op: its frontend wrote the same out in min, max and arithmetic, with other rounding.

    Shapes: data float32 [...]; both outputs have no dimensions.
    Source: aten/src/ATen/native/quantized/cpu/QuantUtils.h ChooseQuantizationParams.
    """
    return _CHOOSE({"data": data}, {"quant_min": quant_min, "quant_max": quant_max, "arithmetic": arithmetic})
