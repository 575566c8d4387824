"""What forms of plain ops share: attributes and shapes of a call as plain Python."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import attr_fields
from qtorch_relay.qnn.op_def import static_shape

__all__ = ["attributes", "axes_of", "dtype_of", "integers", "number", "static_shape"]


def attributes(call: Any) -> dict[str, Any]:
    """Returns a call's attributes by name, lists as tuples of numbers."""
    return {} if call.attrs is None else {name: _plain(value) for name, value in attr_fields(call.attrs)[1].items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if type(value).__name__ in ("Array", "List", "list", "tuple"):
        return tuple(_plain(item) for item in value)
    return value.value if hasattr(value, "value") else str(value)


def number(expr: Any) -> Any:
    """Returns the number that an operand such as clip's bound is."""
    return expr.value


def integers(expr: Any) -> list[int]:
    """Returns the numbers of a shape, or of a tuple of numbers."""
    return [int(item) for item in (expr.values if hasattr(expr, "values") else expr.fields)]


def dtype_of(expr: Any) -> str:
    """Returns a tensor expression's dtype."""
    return str(expr.ty.dtype)


def axes_of(axis: Any, rank: int) -> list[int]:
    """Returns axes counted from 0, all of them for None."""
    if axis is None:
        return list(range(rank))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return [int(one) % max(rank, 1) for one in axes]
