"""A program for any size of a named dimension, found from programs for some sizes: generalize, and back: instantiate.

Converters, type rules and lowering work on shapes of numbers. A model with a named dimension goes through them once for
each of a few sizes. The programs that come out must be the same but for sizes that grow evenly with the named one;
then the program with these sizes as expressions is the one for every size. Whatever else differs is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from qtorch_relay._tvm import Call, TensorType, constant_array, is_constant, relax, structural_equal, tvm, update_type
from qtorch_relay.dimensions import is_fixed, linear_parts, linear_through
from qtorch_relay.errors import UnsupportedOpError, VerifyError


def generalize(mods: Sequence[Any], name: str, sizes: Sequence[int]) -> Any:
    """Returns the module for any size of a dimension, given those for some sizes.

    Before: x: R.Tensor((2, 8)); y = R.reshape(x, (4, 4))  |  x: R.Tensor((3, 8)); y = R.reshape(x, (6, 4))
    After:  x: R.Tensor((n, 8)); y = R.reshape(x, (n * 2, 4))
    Raises: UnsupportedOpError if they differ in more than sizes.
    """
    functions = [{var.name_hint: function for var, function in mod.functions_items()} for mod in mods]
    if any(set(found) != set(functions[0]) for found in functions):
        raise UnsupportedOpError(f"the programs for {name} = {', '.join(map(str, sizes))} have different kernels")
    for known, function in functions[0].items():
        if known != "main" and not all(structural_equal(found[known], function) for found in functions[1:]):
            raise UnsupportedOpError(
                f"the code of {known} is made for one number of elements, which depends on {name}; give {name} as a "
                "number in input_infos"
            )
    main = _Generalizer(name, sizes).function([mod["main"] for mod in mods])
    general = mods[0].clone() if hasattr(mods[0], "clone") else mods[0]
    general.update_func(general.get_global_var("main"), main)
    return general


class _Generalizer:
    def __init__(self, name: str, sizes: Sequence[int]) -> None:
        self.name = name
        self.sizes = sizes
        self.variable = tvm.tirx.Var(name, "int64")
        self.new: dict[Any, Any] = {}
        self.place: dict[Any, Any] = {}
        self.where = "the inputs"

    def function(self, mains: Sequence[Any]) -> Any:
        """Returns main of all sizes."""
        params = [self.define(found) for found in zip(*(main.params for main in mains), strict=True)]
        blocks = []
        for found in zip(*(main.body.blocks for main in mains), strict=True):
            bindings = [block.bindings for block in found]
            if len({len(items) for items in bindings}) != 1:
                raise self.different("the programs have more or fewer steps")
            made = [self.binding(items) for items in zip(*bindings, strict=True)]
            blocks.append(type(found[0])(made))
        self.where = "the outputs"
        result = self.expr([main.body.body for main in mains])
        body = relax.SeqExpr(blocks, result)
        update_type(body, result.ty)
        return relax.Function(params, body, result.ty, mains[0].is_pure, mains[0].attrs)

    def different(self, what: str) -> UnsupportedOpError:
        """Returns the error for programs that are not one."""
        cases = ", ".join(f"{self.name} = {size}" for size in self.sizes)
        return UnsupportedOpError(
            f"the model is not the same program for every {self.name} (tried {cases}): in {self.where}, {what}; "
            f"give {self.name} as a number in input_infos"
        )

    def define(self, variables: Sequence[Any]) -> Any:
        """Returns the new variable of one in each program."""
        first = variables[0]
        made = type(first)(first.name, self.type([variable.ty for variable in variables]))
        for variable in variables:
            self.place[variable] = first
        self.new[first] = made
        return made

    def binding(self, bindings: Sequence[Any]) -> Any:
        """Returns the new binding of one in each program."""
        self.where = str(bindings[0].var.name)
        if any(type(binding) is not relax.VarBinding for binding in bindings):
            raise self.different(f"{type(bindings[0]).__name__} is not understood")
        value = self.expr([binding.value for binding in bindings])
        return relax.VarBinding(self.define([binding.var for binding in bindings]), value)

    def expr(self, exprs: Sequence[Any]) -> Any:
        """Returns the new expression of one in each program."""
        first = exprs[0]
        if any(type(expr) is not type(first) for expr in exprs):
            raise self.different(f"{first} becomes {exprs[-1]}")
        if isinstance(first, relax.Var):
            if len({self.place[expr] for expr in exprs}) != 1:
                raise self.different(f"{first.name} becomes {exprs[-1].name}")
            return self.new[first]
        if isinstance(first, Call):
            return self.call(exprs)
        if isinstance(first, relax.ShapeExpr):
            return relax.ShapeExpr(self.dimensions([expr.values for expr in exprs]))
        if isinstance(first, relax.Tuple):
            return relax.Tuple(self.each([expr.fields for expr in exprs]))
        if isinstance(first, relax.TupleGetItem):
            return relax.TupleGetItem(self.expr([expr.tuple_value for expr in exprs]), first.index)
        if is_constant(first):
            arrays = [constant_array(expr) for expr in exprs]
            if any(array.dtype != arrays[0].dtype or not _same_bits(array, arrays[0]) for array in arrays):
                raise self.different("a constant differs")
            return first
        if is_fixed(first):
            made = self.dimensions([[expr] for expr in exprs])[0]
            return first if isinstance(made, int) else made
        if isinstance(first, tvm.ir.GlobalVar):
            if len({expr.name_hint for expr in exprs}) != 1:
                raise self.different(f"{first.name_hint} becomes {exprs[-1].name_hint}")
            return first
        if not all(structural_equal(expr, first) for expr in exprs):
            raise self.different(f"{first} becomes {exprs[-1]}")
        return first

    def call(self, calls: Sequence[Any]) -> Any:
        """Returns the new call; its type is that of the calls, no type rule runs."""
        first = calls[0]
        operator = first.op if isinstance(first.op, tvm.ir.Op) else self.expr([call.op for call in calls])
        if any(not operator.same_as(call.op) for call in calls) and isinstance(first.op, tvm.ir.Op):
            raise self.different(f"{_name(first.op)} becomes {_name(calls[-1].op)}")
        if not all(structural_equal(call.attrs, first.attrs) for call in calls):
            raise self.different(f"the attributes of {_name(first.op)} differ: {first.attrs} becomes {calls[-1].attrs}")
        types = [self.type(found) for found in zip(*(call.ty_args for call in calls), strict=True)]
        made = Call(operator, self.each([call.args for call in calls]), first.attrs, types)
        update_type(made, self.type([call.ty for call in calls]))
        return made

    def each(self, lists: Sequence[Any]) -> list[Any]:
        if len({len(items) for items in lists}) != 1:
            raise self.different(f"{len(lists[0])} operands become {len(lists[-1])}")
        return [self.expr(items) for items in zip(*lists, strict=True)]

    def dimensions(self, shapes: Sequence[Sequence[Any]]) -> list[Any]:
        """Returns the sizes of one shape in each program."""
        if len({len(shape) for shape in shapes}) != 1:
            raise self.different(f"{len(shapes[0])} dimensions become {len(shapes[-1])}")
        made = []
        for found in zip(*shapes, strict=True):
            points = [(size, int(extent)) for size, extent in zip(self.sizes, found, strict=True)]
            try:
                made.append(linear_through(self.variable, points))
            except VerifyError as error:
                raise self.different(str(error)) from error
        return made

    def type(self, types: Sequence[Any]) -> Any:
        """Returns the type of one in each program."""
        first = types[0]
        if isinstance(first, TensorType) and isinstance(first.shape, relax.ShapeExpr):
            if len({str(found.dtype) for found in types}) != 1:
                raise self.different("the dtypes differ")
            return TensorType(self.dimensions([found.shape.values for found in types]), str(first.dtype))
        if isinstance(first, relax.TupleType):
            return relax.TupleType([self.type(fields) for fields in zip(*(t.fields for t in types), strict=True)])
        if isinstance(first, relax.ShapeType) and first.values is not None:
            return relax.ShapeType(self.dimensions([found.values for found in types]))
        return first


def same_params(name: str, params: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> None:
    """Raises UnsupportedOpError unless the weights are the same for all sizes of a named dimension."""
    for found in params[1:]:
        differing = [key for key in params[0] if key not in found or not _same_bits(found[key], params[0][key])]
        if differing or len(found) != len(params[0]):
            raise UnsupportedOpError(
                f"the model's weights {', '.join(differing[:3])} depend on {name}; give it as a number in input_infos"
            )


def _name(operator: Any) -> str:
    """Returns an op's name; its text is that of the whole registration."""
    return str(operator.name) if isinstance(operator, tvm.ir.Op) else str(operator)


def same_cuts(name: str, cuts: Sequence[Sequence[tuple[str, int]]]) -> None:
    """Raises UnsupportedOpError unless what is cut short by an extent is so by the same extent for every size.

    x[:100] is all of x for n = 1, 2 and 3, and is not for n = 101. cuts: ImportedModule.cut_short for every size.
    """
    for found in zip_longest(*cuts):
        if len(set(found)) > 1:
            where = next(cut[0] for cut in found if cut is not None)
            raise UnsupportedOpError(
                f"{where}: what it takes has another size from some {name} on; give {name} as a number in input_infos"
            )


def instantiate(mod: Any, sizes: Mapping[str, int]) -> Any:
    """Returns a module with numbers in place of its named dimensions."""
    return relax.transform.BindSymbolicVars(dict(sizes), "main")(mod)


def dimension_names(mod: Any) -> list[str]:
    """Returns the names of the dimensions of main's parameters that stand for any size."""
    names = []
    for parameter in mod["main"].params:
        if isinstance(parameter.ty, TensorType) and isinstance(parameter.ty.shape, relax.ShapeExpr):
            names += [linear_parts(size)[1].name for size in parameter.ty.shape.values if not is_fixed(size)]
    return list(dict.fromkeys(names))


def _same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
