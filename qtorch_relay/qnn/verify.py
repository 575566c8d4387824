"""The verifier of the dialect: it runs after every stage and names the binding that breaks a rule."""

from __future__ import annotations

from typing import Any

from qtorch_relay._tvm import Call, Op, relax
from qtorch_relay.errors import VerifyError
from qtorch_relay.qnn.op_def import OPS, Operands


def verify(mod: Any) -> None:
    """Checks every qnn call of a module: scale > 0, zero point in range, axis length, dtypes, shapes.

    Raises: VerifyError naming the binding and the rule.
    """
    for _, function in mod.functions_items():
        if not isinstance(function, relax.Function):
            continue
        for block in function.body.blocks:
            for binding in block.bindings:
                _verify_binding(binding)


def qnn_ops_in(mod: Any) -> list[str]:
    """Returns the names of the qnn ops that a module still calls, once each, sorted."""
    found = set()
    for _, function in mod.functions_items():
        if isinstance(function, relax.Function):
            for block in function.body.blocks:
                for binding in block.bindings:
                    if is_qnn_call(binding.value):
                        found.add(binding.value.op.name)
    return sorted(found)


def is_qnn_call(expr: Any) -> bool:
    """Says whether an expression is a call of an op of the dialect."""
    return isinstance(expr, Call) and isinstance(expr.op, Op) and expr.op.name in OPS


def _verify_binding(binding: Any) -> None:
    call = binding.value
    if not is_qnn_call(call):
        return
    try:
        OPS[call.op.name].check(Operands(call))
    except VerifyError as error:
        raise VerifyError(f"{binding.var.name} = {error}") from error
