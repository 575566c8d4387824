"""What follows from constants is bound as a constant, with the values that the code would have computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.lowering.fold_constants import FOLDS, FoldConstants
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from tests.lowering.build import Case, constant, execute

op = relax.op
# op: (call, operands as (shape, dtype))
ROWS: dict[str, tuple[Any, list[tuple[tuple[int, ...], str]]]] = {
    "relax.astype": (lambda x: op.astype(x, "int8"), [((2, 3), "int32")]),
    "relax.reshape": (lambda x: op.reshape(x, (3, 2)), [((2, 3), "uint8")]),
    "relax.expand_dims": (lambda x: op.expand_dims(x, [0, 2]), [((2, 3), "float32")]),
    "relax.squeeze": (lambda x: op.squeeze(x, [1]), [((2, 1, 3), "int8")]),
    "relax.permute_dims": (lambda x: op.permute_dims(x, [2, 0, 1]), [((2, 3, 4), "int8")]),
    "relax.add": (op.add, [((2, 3), "int32"), ((2, 3), "int32")]),
    "relax.subtract": (op.subtract, [((2, 3), "int32"), ((3,), "int32")]),
    "relax.multiply": (op.multiply, [((2, 3), "float32"), ((), "float32")]),
}


def _folded(body: Any) -> list[Any]:
    """Returns the values bound after folding in a program that gives out what body returns."""
    case = Case("case", {"x": ((2, 3), "float32")}, lambda emit, x: relax.Tuple([x, emit(body(emit), "last")]))
    return [binding.value for binding in bindings_of(FoldConstants()(case.module())["main"])]


@pytest.mark.parametrize("name", FOLDS)
def test_what_is_folded_has_the_value_that_code_computes(name: str) -> None:
    call, operands = ROWS[name]
    names = [f"x{i}" for i in range(len(operands))]
    case = Case("case", dict(zip(names, operands, strict=True)), lambda emit, *inputs: emit(call(*inputs), "y"))
    arrays = case.arrays()
    constants = [relax.const(array, str(array.dtype)) for array in arrays]
    folded = constant_array(_folded(lambda _: call(*constants))[0])
    [computed] = execute(case.module(), arrays)
    assert op_name(bindings_of(case.module()["main"])[0].value) == name
    assert folded.dtype == computed.dtype
    np.testing.assert_array_equal(folded, computed)


def test_users_of_what_is_folded_read_a_variable() -> None:
    x = relax.Var("y", relax.TensorType((), "float32"))
    values = _folded(lambda emit: op.multiply(x, emit(op.astype(constant(1, (), "int32"), "float32"), "wide")))
    assert is_constant(values[0])
    assert isinstance(values[1].args[1], relax.Var)


def test_a_float_that_may_fit_no_integer_is_left_to_the_target() -> None:
    assert op_name(_folded(lambda _: op.astype(constant(1, (2,), "float32"), "int32"))[0]) == "relax.astype"


def test_a_constant_used_twice_stays_one_object() -> None:
    shared = constant(1, (16,), "float32")
    first, second, *_ = _folded(lambda emit: relax.Tuple([emit(shared, "first"), emit(shared, "second")]))
    assert first.same_as(second)
