"""What is said to come nearest to an op that cannot be imported."""

from __future__ import annotations

import pytest

from qtorch_relay.capture.graph import Node
from qtorch_relay.frontend import ops as _ops  # noqa: F401  (fills the registry)
from qtorch_relay.frontend.unsupported import nearest_form


@pytest.mark.parametrize(
    ("op", "nearest"),
    [
        ("aten::quantize_per_tensor.no_such_overload", "aten::quantize_per_tensor"),
        ("somebody::hardswish", "aten::hardswish, quantized::hardswish"),
        ("quantized::convolution2d", "aten::_convolution"),
        ("quantized::my_own_op", "aten::dequantize, the op on floats, and aten::quantize_per_tensor"),
        ("aten::real", ""),
    ],
)
def test_the_nearest_form(op: str, nearest: str) -> None:
    assert nearest_form(Node(op, {}, ())).startswith(nearest)
    assert bool(nearest_form(Node(op, {}, ()))) is bool(nearest)
