"""lift_constants: large constants leave the program and become parameters, so that code and weights are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import Call, constant_array, is_constant, mutator, relax
from qtorch_relay.lowering.rebuild import bindings_of

# Constants below this size stay in the program: they are scalars and small parameter vectors of generic ops.
LEAST_LIFTED_BYTES = 64


def lift_constants(mod: Any) -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """Returns mod with one more parameter of main per distinct large constant, and their values in that order.

    Bytes, the codes of weights, come last, in the order of their use: kernels fetch ahead what lies behind the weights
    they work on, which then are those of the next layer.
    A parameter is named after the first value computed from it. A constant object used twice becomes one parameter.
    """
    main = mod["main"]
    lifter = _Lifter(mod, _names_of_constants(main))
    lifted = lifter.visit_expr(main)
    lifted_constants = sorted(zip(lifter.variables, lifter.arrays, strict=True), key=lambda pair: pair[1].itemsize == 1)
    params = [*lifted.params, *(variable for variable, _ in lifted_constants)]
    function = relax.Function(params, lifted.body, lifted.ret_ty, lifted.is_pure, lifted.attrs)
    mod = mod.clone() if hasattr(mod, "clone") else mod
    mod.update_func(mod.get_global_var("main"), function)
    weights = {variable.name: array for variable, array in lifted_constants}
    return mod, weights


def _names_of_constants(main: Any) -> dict[Any, str]:
    names: dict[Any, str] = {}

    def visit(expr: Any, name: str) -> None:
        if isinstance(expr, relax.Tuple):
            for field in expr.fields:
                visit(field, name)
        elif isinstance(expr, Call):
            for argument in expr.args:
                visit(argument, name)
        elif is_constant(expr):
            names.setdefault(expr, name)

    for binding in bindings_of(main):
        visit(binding.value, binding.var.name)
    return names


@mutator
class _Lifter(relax.PyExprMutator):
    def __init__(self, mod: Any, names: dict[Any, str]) -> None:
        super().__init__(mod)
        self.names = names
        self.variables: list[Any] = []
        self.arrays: list[np.ndarray[Any, Any]] = []
        self.known: dict[Any, Any] = {}

    def visit_generic_const_(self, const: Any) -> Any:
        array = constant_array(const)
        if array.nbytes < LEAST_LIFTED_BYTES:
            return const
        if const not in self.known:
            name = f"{self.names.get(const, 'constant')}_w{len(self.variables)}"
            var = relax.Var(name, relax.TensorType(array.shape, str(array.dtype)))
            self.known[const] = var
            self.variables.append(var)
            self.arrays.append(array)
        return self.known[const]
