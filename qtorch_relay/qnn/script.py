"""TVMScript of modules with qnn ops: mod.script() prints qnn.conv2d(...), and from_script reads it back.

In a Python file, `from qtorch_relay.qnn.script import qnn` makes the names known to @I.ir_module:

    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((2, 3), "uint8")) -> R.Tensor((2, 3), "float32"):
            y = qnn.dequantize(x, R.const(0.5), R.const(3, "int32"), axis=1)
            return y

Operands come first, in the op's order; attributes follow by name, and one left out has the builder's default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from qtorch_relay import qnn as builders
from qtorch_relay._tvm import Call, is_constant, parse_script, relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import OPS, Expr, QnnOp


def _caller(op: QnnOp) -> Callable[..., Expr]:
    """Returns the function that makes calls of an op in TVMScript: operands, then attributes by name."""
    builder = getattr(builders, op.name.removeprefix("qnn."))
    parameters = inspect.signature(builder).parameters
    defaults = {
        name: parameters[name].default
        for name in op.attributes
        if name in parameters and parameters[name].default is not inspect.Parameter.empty
    }

    def call(*operands: Expr | tuple[Expr, ...], **attributes: Any) -> Expr:
        given = {**defaults, **attributes}
        missing = [name for name in op.attributes if name not in given]
        if missing or len(given) != len(op.attributes):
            raise VerifyError(f"{op.name}: attributes are {', '.join(op.attributes)}; missing: {', '.join(missing)}")
        expressions = [relax.Tuple(operand) if isinstance(operand, tuple | list) else operand for operand in operands]
        return Call(op.relax_op, expressions, attrs=given)

    call.__name__, call.__doc__ = op.name, builder.__doc__
    return call


qnn = SimpleNamespace(**{name.removeprefix("qnn."): _caller(op) for name, op in OPS.items()})


def script_constants(mod: Any) -> list[Expr]:
    """Returns the constants that mod.script() writes as metadata["ir.GenericConst"][i], in order.

    Those are the constants with dimensions; one object counts once.
    """
    found: list[Expr] = []

    def visit(expr: Any) -> None:
        if is_constant(expr) and len(expr.ty.shape.values) and not any(expr.same_as(other) for other in found):
            found.append(expr)

    for _, function in mod.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return found


def from_script(text: str, constants: Sequence[Expr] = ()) -> Any:
    """Returns the module of TVMScript text with qnn ops.

    constants: what the text calls metadata["ir.GenericConst"][i], from script_constants. TVM evaluates the text as
    Python: read only text that you trust. load_module reads files without running anything.
    """
    return parse_script(text, {"qnn": qnn, "metadata": {"ir.GenericConst": list(constants)}})
