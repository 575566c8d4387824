"""Sizes that depend on a named dimension, factor * n + rest: as TVM's expressions, as text, and found from examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtorch_relay._tvm import tvm
from qtorch_relay.errors import VerifyError


def is_fixed(size: Any) -> bool:
    """Says whether a size of a shape is a number."""
    return isinstance(size, int | tvm.tirx.IntImm)


def variables_in(size: Any) -> list[Any]:
    """Returns the symbolic variables of a size."""
    return [] if is_fixed(size) else list(tvm.tirx.analysis.undefined_vars(tvm.tirx.Evaluate(size), []))


def linear_parts(size: Any) -> tuple[int, Any, int]:
    """Returns factor, variable and rest of factor * variable + rest.

    Raises: VerifyError if the size is not of that form.
    """
    variables = variables_in(size)
    parts = list(tvm.sym.detect_linear_equation(size, variables)) if len(variables) == 1 else []
    if len(parts) != 2 or not all(is_fixed(part) for part in parts):
        raise VerifyError(f"the size {size} is not a multiple of one named dimension and a rest")
    return int(parts[0]), variables[0], int(parts[1])


def linear_text(size: Any) -> str:
    """Returns a size as runtime.specs.Dimension writes it: "n", "4*n", "n+1", "4*n-3"."""
    factor, variable, rest = linear_parts(size)
    text = str(variable.name) if factor == 1 else f"{factor}*{variable.name}"
    return text if rest == 0 else f"{text}{rest:+d}"


def size_text(size: Any) -> str:
    """Returns a size as text: a number, or what linear_text returns."""
    return str(int(size)) if is_fixed(size) else linear_text(size)


def linear_through(variable: Any, points: Sequence[tuple[int, int]]) -> Any:
    """Returns the size factor * variable + rest that has these values (variable, size); a number if all are equal.

    Raises: VerifyError if there is none.
    """
    (x0, y0), (x1, y1) = points[:2]
    factor, odd = divmod(y1 - y0, x1 - x0)
    rest = y0 - factor * x0
    if odd or any(factor * x + rest != y for x, y in points):
        raise VerifyError(f"the sizes {[y for _, y in points]} do not grow evenly with {[x for x, _ in points]}")
    if factor == 0:
        return rest
    scaled = variable if factor == 1 else variable * factor
    return scaled if rest == 0 else scaled + rest
