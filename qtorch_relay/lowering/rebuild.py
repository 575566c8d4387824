"""What every lowering pass needs: the bindings of main in order, who uses what, and a rebuilt main at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtorch_relay._tvm import Call, Op, relax, tvm


def bindings_of(function: Any) -> list[Any]:
    """Returns all bindings of a straight-line function, in order."""
    return [binding for block in function.body.blocks for binding in block.bindings]


def op_name(expr: Any) -> str:
    """Returns the name of the op that an expression calls, "" if it calls none."""
    return str(expr.op.name) if isinstance(expr, Call) and isinstance(expr.op, Op) else ""


def variables_in(expr: Any) -> list[Any]:
    """Returns the variables that an expression reads directly, with repetitions."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        return [var for field in expr.fields for var in variables_in(field)]
    if isinstance(expr, relax.TupleGetItem):
        return variables_in(expr.tuple_value)
    if isinstance(expr, Call):
        return [var for argument in expr.args for var in variables_in(argument)]
    return []


def constants_in(function: Any) -> set[Any]:
    """Returns the variables whose values follow from constants alone."""
    found: set[Any] = set()
    for binding in bindings_of(function):
        if all(var in found for var in variables_in(binding.value)):
            found.add(binding.var)
    return found


def users_of(function: Any) -> dict[Any, list[Any]]:
    """Returns, for every variable, the bindings that read it; None stands for the function's result."""
    users: dict[Any, list[Any]] = {}
    for binding in bindings_of(function):
        for var in variables_in(binding.value):
            users.setdefault(var, []).append(binding)
    for var in variables_in(function.body.body):
        users.setdefault(var, []).append(None)
    return users


def rebuild_main(mod: Any, emit_body: Callable[[Any, Any], Any]) -> Any:
    """Returns mod with a new main of the same parameters and attributes.

    emit_body: (builder, old main) -> the new main's result, called inside a dataflow block.
    """
    main = mod["main"]
    others = {var: function for var, function in mod.functions_items() if var.name_hint != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(others, attrs=mod.attrs))
    attrs = {key: value for key, value in dict(main.attrs or {}).items() if key != "global_symbol"}
    with builder.function("main", list(main.params), attrs=attrs):
        with builder.dataflow():
            output = builder.emit_output(emit_body(builder, main))
        builder.emit_func_output(output)
    return builder.finalize()
