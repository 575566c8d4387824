"""Tables of unary ops on quantized tensors, made by running PyTorch's own op over all 256 codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.graph import QuantizedConstant, TensorConstant
from qtorch_relay.capture.interpreter import find_operation
from qtorch_relay.capture.packed import quant_params
from qtorch_relay.errors import UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import PerTensor, code_range


@dataclass(frozen=True, eq=False)
class UnaryTable:
    """codes[i] is the output for input code low + i, where low is -128 for int8 and 0 for uint8; shape [256].

    tail_codes is the same for the elements that do not fill a vector of 64 at the end of a run, which PyTorch computes
    with scalar code: some ops (hardswish, leaky_relu, celu, threshold) round a few codes differently there.
    """

    codes: npt.NDArray[np.integer[Any]]
    tail_codes: npt.NDArray[np.integer[Any]]
    output_qparams: PerTensor


def unary_table(op: str, args: Mapping[str, Any], input_qparams: PerTensor, engine: str | None = None) -> UnaryTable:
    """Returns what an op gives for every code of its quantized input.

    op: "ns::name" or "ns::name.overload" ("quantized::hardswish", "aten::hardtanh").
    args: the other arguments by their schema names; those left out take their defaults. The first tensor argument is
        the quantized input: it may be left out, and is replaced if it is there.
    Raises: UnsupportedOpError if the op is unknown or does not run on quantized tensors; UnsupportedQuantSchemeError
        if the input has no 256 codes or the output is not quantized per tensor.
    """
    if input_qparams.dtype not in ("uint8", "int8"):
        raise UnsupportedQuantSchemeError(f"{op} on codes of dtype {input_qparams.dtype}; accepted are uint8 and int8")
    name, _, overload = op.partition(".")
    operation = find_operation(name, overload)
    codes = _all_codes(input_qparams)
    with quantized_engine(engine), torch.no_grad():
        body = _run(op, operation, args, codes)
        # 32 elements are less than a vector, so this is the scalar code.
        tail = [_run(op, operation, args, piece) for piece in codes.split(32)]
    qparams = quant_params(body)
    if not isinstance(qparams, PerTensor):
        raise UnsupportedQuantSchemeError(f"{op} gives an output quantized per channel")
    return UnaryTable(_codes(body), np.concatenate([_codes(piece) for piece in tail]), qparams)


def _run(op: str, operation: Any, args: Mapping[str, Any], codes: torch.Tensor) -> torch.Tensor:
    positional, keywords = _bind(op, operation._schema, args, codes.clone())
    try:
        result = operation(*positional, **keywords)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedOpError(
            f"{op} does not run on {codes.dtype} tensors with engine {torch.backends.quantized.engine!r}; "
            f"PyTorch says: {str(error).splitlines()[0]}"
        ) from error
    if not (isinstance(result, torch.Tensor) and result.is_quantized and result.shape == codes.shape):
        raise UnsupportedQuantSchemeError(f"{op} does not give one quantized element for each of its input")
    return result


def _codes(tensor: torch.Tensor) -> npt.NDArray[np.integer[Any]]:
    return np.ascontiguousarray(tensor.int_repr().numpy())


def _all_codes(qparams: PerTensor) -> torch.Tensor:
    low, high = code_range(qparams.dtype)
    codes = torch.arange(low, high + 1).to(getattr(torch, qparams.dtype))
    return torch._make_per_tensor_quantized_tensor(codes, qparams.scale, qparams.zero_point)


def _bind(op: str, schema: Any, args: Mapping[str, Any], codes: torch.Tensor) -> tuple[list[Any], dict[str, Any]]:
    """Returns positional and keyword arguments of a schema, the first tensor replaced by all codes."""
    names = [argument.name for argument in schema.arguments]
    unknown = [name for name in args if name not in names]
    if unknown:
        raise UnsupportedOpError(f"{op} has no argument {', '.join(unknown)}; it has {', '.join(names)}")
    tensor = next((a.name for a in schema.arguments if str(a.type) == "Tensor"), None)
    if tensor is None:
        raise UnsupportedOpError(f"{op} takes no tensor")
    values = {name: _to_torch(value) for name, value in args.items()} | {tensor: codes}
    missing = [a.name for a in schema.arguments if a.name not in values and not a.has_default_value()]
    if missing:
        raise UnsupportedOpError(f"{op} needs a value for {', '.join(missing)}")
    positional, keywords = [], {}
    for argument in schema.arguments:
        value = values.get(argument.name, argument.default_value)
        if argument.kwarg_only:
            keywords[argument.name] = value
        else:
            positional.append(value)
    return positional, keywords


def _to_torch(value: Any) -> Any:
    if isinstance(value, TensorConstant):
        return torch.from_numpy(np.array(value.array))
    if isinstance(value, QuantizedConstant):
        raise UnsupportedOpError("an op with two quantized inputs has no table of 256 codes")
    return value
