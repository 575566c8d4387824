"""Ops that pack weights or read what was packed: run by PyTorch at import, since weights are the model's constants."""

from __future__ import annotations

from qtorch_relay.frontend.registry import fold, refuse

_CONV_FIELDS = ("stride", "padding", "output_padding", "dilation", "groups", "transpose")

fold(
    "quantized::conv_prepack",
    *(f"quantized::conv{dims}d_prepack" for dims in (1, 2, 3)),
    *(f"quantized::conv_transpose{dims}d_prepack" for dims in (1, 2, 3)),
    "quantized::linear_prepack",
    "quantized::linear_prepack_fp16",
    "quantized::linear_prepack_legacy",
    "quantized::linear_prepack_fp16_legacy",
    "_quantized::linear_prepack",
    "_quantized::linear_prepack_fp16",
    "_quantized::linear_prepack_legacy",
    "_quantized::linear_prepack_fp16_legacy",
    how="packs constant weights",
)
fold(
    "quantized::conv_unpack",
    "quantized::conv2d_unpack_sizes",
    *(f"quantized::conv{dims}d_unpack" for dims in (1, 2, 3)),
    *(f"quantized::conv_transpose{dims}d_unpack" for dims in (1, 2, 3)),
    *(f"quantized::conv{dims}d_{field}" for dims in (2, 3) for field in _CONV_FIELDS),
    *(f"quantized::conv_transpose{dims}d_{field}" for dims in (2, 3) for field in _CONV_FIELDS),
    "quantized::linear_unpack",
    "quantized::linear_unpack_fp16",
    how="reads packed weights",
)
refuse(
    "quantized::int4mm_packed_weight_cpu",
    reason="multiplies bfloat16 activations by 4-bit weights in groups; nothing of it is int8",
    nearest="quantized::linear_dynamic with int8 weights",
)
