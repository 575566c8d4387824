"""Refusals of ops that allocate or resize memory, and of a few that depend on values known only at run time."""

from __future__ import annotations

from qtorch_relay.frontend.registry import fold, refuse

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

# capture.written_views opens them, as the out forms of any op on tensors that are not quantized
fold(
    *(f"aten::{name}.{form}_out" for name in _COMPARISONS for form in ("Tensor", "Scalar")),
    how="becomes the form without out and a copy into out",
)
refuse(
    "aten::empty_quantized",
    "aten::empty_strided",
    "aten::resize_",
    "aten::set_.source_Storage_storage_offset",
    reason="it makes memory without values, which an imported program never shows",
    nearest="aten::full_like",
)
refuse(
    "aten::equal",
    reason="its result is a Python bool that depends on values known only at run time",
    nearest="aten::eq.Tensor",
)
