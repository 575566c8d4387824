"""Reads quantized tensors and packed params as they are: integer codes and parameters, never a dequantized copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qtorch_relay.capture.direct_conv import read_weight
from qtorch_relay.capture.graph import CellParams, ConvParams, EmbeddingParams, LinearFp16Params, LinearParams
from qtorch_relay.engine_constants import takes_direct_kernel
from qtorch_relay.errors import EngineError, QTorchRelayError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import (
    FloatQuantizedTensor,
    PerChannel,
    PerChannelFloat,
    PerTensor,
    QuantizedTensor,
    QuantParams,
)

CODE_DTYPE = {torch.quint8: "uint8", torch.qint8: "int8", torch.qint32: "int32"}
_PER_TENSOR = (torch.per_tensor_affine, torch.per_tensor_symmetric)
_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric)
_FLOAT_CODES = {
    torch.quint8: ("uint8", 8),
    torch.qint8: ("int8", 8),
    torch.quint4x2: ("uint8", 4),
    torch.quint2x4: ("uint8", 2),
}
_SPATIAL_DIMS = {"Conv2dPackedParamsBase": 2, "Conv3dPackedParamsBase": 3}


def quant_params(tensor: torch.Tensor) -> QuantParams:
    """Returns a quantized tensor's parameters.

    Raises: UnsupportedQuantSchemeError for 4-bit codes and for float zero points.
    """
    if tensor.dtype not in CODE_DTYPE:
        raise UnsupportedQuantSchemeError(f"codes of dtype {tensor.dtype}; accepted are quint8, qint8 and qint32")
    dtype = CODE_DTYPE[tensor.dtype]
    scheme = tensor.qscheme()
    if scheme in _PER_TENSOR:
        return PerTensor(tensor.q_scale(), tensor.q_zero_point(), dtype)
    if scheme in _PER_CHANNEL:
        return PerChannel(
            tensor.q_per_channel_scales().to(torch.float64).numpy(),
            tensor.q_per_channel_zero_points().to(torch.int64).numpy(),
            tensor.q_per_channel_axis(),
            dtype,
        )
    raise UnsupportedQuantSchemeError(f"scheme {scheme}; accepted are per_tensor_affine and per_channel_affine")


def quantized_tensor(tensor: torch.Tensor) -> QuantizedTensor:
    """Returns the codes (C order, logical shape) and the parameters of a quantized tensor."""
    codes = tensor.int_repr().contiguous().numpy()
    return QuantizedTensor(codes, quant_params(tensor))


def quantized_constant(tensor: torch.Tensor) -> QuantizedTensor | FloatQuantizedTensor:
    """Returns the codes and the parameters of a quantized tensor of any scheme.

    Raises: UnsupportedQuantSchemeError for 4-bit codes of one scale.
    """
    if tensor.qscheme() != torch.per_channel_affine_float_qparams or tensor.dtype not in _FLOAT_CODES:
        return quantized_tensor(tensor)
    dtype, bits = _FLOAT_CODES[tensor.dtype]
    qparams = PerChannelFloat(
        tensor.q_per_channel_scales().to(torch.float32).numpy(),
        tensor.q_per_channel_zero_points().to(torch.float32).numpy(),
        tensor.q_per_channel_axis(),
        dtype,
        bits,
    )
    return FloatQuantizedTensor(_codes_one_a_byte(tensor, bits), qparams)


def _codes_one_a_byte(tensor: torch.Tensor, bits: int) -> npt.NDArray[np.integer]:
    packed = tensor.int_repr().numpy()
    if bits == 8:
        return np.ascontiguousarray(packed)
    # Sub-byte codes lie densely, the first one in the lowest bits (QuantizedOpKernels.cpp).
    codes = packed.reshape(-1, 1) >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8(2**bits - 1)
    return np.ascontiguousarray(codes.reshape(-1)[: tensor.numel()].reshape(tensor.shape))


class UnreadableParamsError(UnsupportedQuantSchemeError):
    """Parameters packed for qnnpack that PyTorch cannot unpack, nor write to a file: 3-d convolutions."""


def is_packed(value: Any) -> bool:
    """Tells whether a value is one of PyTorch's packed weight objects."""
    return isinstance(value, torch.ScriptObject) and _type_name(value).endswith(("PackedParamsBase", "CellParamsBase"))


def unpack(
    packed: Any, name: str, consumer: str
) -> ConvParams | LinearParams | LinearFp16Params | CellParams | EmbeddingParams:
    """Returns a packed object's weight, bias and attributes; every engine unpacks to the codes it was packed from.

    consumer: an op that takes the object. conv1d params are stored as 2-d ones, and only their use tells.
    Raises: UnsupportedQuantSchemeError if the object holds anything but int8 weights of a convolution or linear,
        float16 weights of a linear, either of a recurrent layer, or 8- or 4-bit rows of an embedding.
    """
    try:
        kind = _type_name(packed)
        if kind == "LinearPackedParamsBase":
            return _linear(packed, name)
        if kind == "CellParamsBase":
            return _cell(packed, name)
        if kind == "EmbeddingPackedParamsBase":
            return _embedding(packed, name)
        if kind in _SPATIAL_DIMS:
            return _conv(packed, name, 1 if "1d" in consumer else _SPATIAL_DIMS[kind])
    except QTorchRelayError as error:
        raise UnsupportedQuantSchemeError(f"weight {name} of {consumer} has {error}") from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if "QNNPACK only supports" in reason:
            raise UnreadableParamsError(
                f"weight {name} of {consumer} is packed for qnnpack, and PyTorch does not unpack 3-d convolutions "
                "packed for it; pass the model's file, or the model packed for fbgemm, and engine='qnnpack'"
            ) from error
        raise UnsupportedQuantSchemeError(f"weight {name} of {consumer} cannot be unpacked: {reason}") from error
    raise UnsupportedQuantSchemeError(
        f"weight {name} of {consumer} is a {kind}; accepted are packed params of Conv1d/2d/3d, ConvTranspose, Linear,"
        " Embedding and recurrent cells"
    )


def repack(packed: Any) -> Any:
    """Returns the same weights packed for the engine that is set now, or the object itself if it cannot be unpacked.

    Raises: EngineError if the engine cannot take the weights.
    """
    ops, kind = torch.ops.quantized, _type_name(packed)
    try:
        if kind == "LinearPackedParamsBase":
            weight, bias = ops.linear_unpack(packed)
        elif kind in _SPATIAL_DIMS:
            stored = f"conv{_SPATIAL_DIMS[kind]}d"
            transpose = bool(getattr(ops, f"{stored}_transpose")(packed))
            prefix = stored.replace("conv", "conv_transpose") if transpose else stored
            weight, bias = _conv_weight(packed, prefix)
        else:
            return packed
    except RuntimeError:
        return packed  # QNNPACK does not unpack 3-d convolutions
    try:
        if kind == "LinearPackedParamsBase":
            return ops.linear_prepack(weight, bias) if weight.is_quantized else ops.linear_prepack_fp16(weight, bias)
        keys = ("stride", "padding", *(("output_padding",) if transpose else ()), "dilation", "groups")
        attributes = [getattr(ops, f"{stored}_{key}")(packed) for key in keys]
        return getattr(ops, f"{prefix}_prepack")(weight, bias, *attributes)
    except RuntimeError as error:
        engine = torch.backends.quantized.engine
        raise EngineError(f"engine {engine!r} cannot take the model's weights: {str(error).splitlines()[0]}") from error


def _type_name(packed: Any) -> str:
    return str(packed._type()).rsplit(".", 1)[-1]


def _linear(packed: Any, name: str) -> LinearParams | LinearFp16Params:
    weight, bias = torch.ops.quantized.linear_unpack(packed)
    if weight.is_quantized:
        return LinearParams(weight=quantized_tensor(weight), bias=_bias(bias), name=name)
    # unpacked as float32 that float16 holds exactly
    halves = np.ascontiguousarray(weight.detach().to(torch.float16).numpy())
    return LinearFp16Params(weight=halves, bias=_bias(bias), name=name)


def _cell(packed: Any, name: str) -> CellParams:
    (kind, _, _, integers, layers), _ = packed.__getstate__()
    if kind not in ("quantized_dynamic", "quantized_fp16"):
        raise UnsupportedQuantSchemeError(
            f"cell parameters of kind {kind}; accepted are quantized_dynamic and quantized_fp16"
        )
    input_layer, hidden_layer = (
        _linear(layer, f"{name}.{part}") for layer, part in zip(layers, ("ih", "hh"), strict=True)
    )
    return CellParams(input_layer, hidden_layer, bool(integers and integers[0]), name)


def _embedding(packed: Any, name: str) -> EmbeddingParams:
    """Returns the rows as PyTorch packs them (qembeddingbag_prepack.cpp): bias = zero point * scale * -1."""
    weight = torch.ops.quantized.embedding_bag_unpack(packed)
    bits = _FLOAT_CODES[weight.dtype][1]
    scales = weight.q_per_channel_scales().to(torch.float32).numpy()
    biases = weight.q_per_channel_zero_points().to(torch.float32).numpy() * scales * np.float32(-1)
    with np.errstate(over="ignore"):  # beyond float16 is infinite, as in PyTorch
        tail = np.stack([scales, biases], axis=1).astype(np.float32 if bits == 8 else np.float16)
    codes = weight.int_repr().numpy().reshape(weight.shape[0], -1)
    return EmbeddingParams(np.ascontiguousarray(np.hstack([codes, tail.view(np.uint8)])), bits, name)


def _conv(packed: Any, name: str, dims: int) -> ConvParams:
    ops = torch.ops.quantized
    stored = "conv3d" if dims == 3 else "conv2d"
    transpose = bool(getattr(ops, f"{stored}_transpose")(packed))
    prefix = f"conv_transpose{dims}d" if transpose else f"conv{dims}d"
    weight, bias = _conv_weight(packed, prefix)

    def attribute(key: str) -> tuple[int, ...]:
        # A 1-d convolution is stored as a 2-d one of height 1; its own dimension is the last.
        return tuple(int(v) for v in getattr(ops, f"{stored}_{key}")(packed))[-dims:]

    return ConvParams(
        weight=quantized_tensor(weight),
        bias=_bias(bias),
        stride=attribute("stride"),
        padding=attribute("padding"),
        output_padding=attribute("output_padding"),
        dilation=attribute("dilation"),
        groups=int(getattr(ops, f"{stored}_groups")(packed)),
        transpose=transpose,
        name=name,
    )


def _conv_weight(packed: Any, prefix: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the weight and the bias; prefix: "conv2d", "conv_transpose3d" and so on."""
    ops = torch.ops.quantized
    weight, bias = getattr(ops, f"{prefix}_unpack")(packed)
    if prefix == "conv_transpose2d":
        known = {key: getattr(ops, f"conv2d_{key}")(packed) for key in ("groups", "stride", "padding", "dilation")}
        if takes_direct_kernel(weight.shape, **known):
            weight = read_weight(packed, weight)
    return weight, bias


def _bias(bias: torch.Tensor | None) -> npt.NDArray[np.float32] | None:
    return None if bias is None else np.ascontiguousarray(bias.detach().to(torch.float32).numpy())
