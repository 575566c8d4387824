"""What PyTorch's dispatcher knows about quantized tensors."""

from __future__ import annotations

import torch


def quantized_op_names() -> tuple[str, ...]:
    """Returns every op with its overload that is in `quantized::`, or in `aten::` with a kernel for quantized CPU
    tensors, sorted."""
    found = torch._C._dispatch_get_all_op_names()
    return tuple(
        sorted(
            name
            for name in found
            if name.startswith("quantized::")
            or (name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "QuantizedCPU"))
        )
    )
