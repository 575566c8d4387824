"""Refusals of ops that allocate, resize or write into memory, and of the forms that take the result's tensor."""

from __future__ import annotations

from qtorch_relay.frontend.registry import refuse

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

refuse(
    *(f"aten::{name}.{form}_out" for name in _COMPARISONS for form in ("Tensor", "Scalar")),
    reason="it writes its result into a tensor that is given",
    nearest="the form without out",
)
refuse(
    "aten::empty.memory_format",
    "aten::empty_like",
    "aten::empty_quantized",
    "aten::empty_strided",
    "aten::resize_",
    "aten::set_.source_Storage_storage_offset",
    reason="it makes memory without values, which an imported program never shows",
    nearest="aten::full_like",
)
refuse(
    "aten::_index_put_impl_",
    reason="it writes into a part of a quantized tensor",
    nearest="aten::masked_fill, or aten::cat of the parts",
)
refuse(
    "aten::equal",
    reason="its result is a Python bool that depends on values known only at run time",
    nearest="aten::eq.Tensor",
)
refuse(
    "aten::grid_sampler",
    "aten::grid_sampler_2d",
    reason="sampling at places known only at run time has no converter yet",
    nearest="aten::upsample_bilinear2d for regular places",
)
