"""Large constants become parameters of main, once each, in order; what it computes stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from qtorch_relay._tvm import constant_array, is_constant, relax
from qtorch_relay.lowering.lift_constants import LEAST_LIFTED_BYTES, lift_constants
from qtorch_relay.lowering.rebuild import bindings_of
from qtorch_relay.lowering.select_kernels import select_kernels
from tests.lowering.build import ISA, Case, Emit, Inputs, assert_same_results, constant, execute
from tests.lowering.test_select_kernels import SELECTED

FLOATS: Inputs = {"x": ((4, 16), "float32")}
op = relax.op


def _lifted(body: Any, inputs: Inputs = FLOATS) -> tuple[Any, Any, dict[str, np.ndarray[Any, Any]]]:
    """Returns a module and what lift_constants makes of it."""
    before = Case("case", inputs, body).module()
    return before, *lift_constants(before)


def _constants(mod: Any) -> list[np.ndarray[Any, Any]]:
    return [
        constant_array(argument)
        for binding in bindings_of(mod["main"])
        for argument in getattr(binding.value, "args", ())
        if is_constant(argument)
    ]


def _names(mod: Any) -> list[str]:
    return [param.name for param in mod["main"].params]


def _check(before: Any, after: Any, weights: dict[str, np.ndarray[Any, Any]], inputs: Inputs = FLOATS) -> None:
    arrays = Case("case", inputs, lambda *_: None).arrays()
    assert str(after["main"].ret_ty) == str(before["main"].ret_ty)
    assert_same_results(execute(after, [*arrays, *weights.values()]), execute(before, arrays))


def test_large_constants_become_parameters_in_order_of_use() -> None:
    first, second = constant(1, (16,), "float32"), constant(2, (4, 16), "float32")
    before, after, weights = _lifted(
        lambda emit, x: emit(op.multiply(emit(op.add(x, first), "sum"), second), "product")
    )
    assert _names(after) == ["x", "sum_w0", "product_w1"]
    assert list(weights) == ["sum_w0", "product_w1"]
    np.testing.assert_array_equal(weights["sum_w0"], constant_array(first))
    np.testing.assert_array_equal(weights["product_w1"], constant_array(second))
    assert [str(param.ty.dtype) for param in after["main"].params] == ["float32"] * 3
    assert _constants(after) == []
    _check(before, after, weights)


def test_a_constant_used_twice_is_lifted_once() -> None:
    shared = constant(1, (16,), "float32")

    def body(emit: Emit, x: Any) -> Any:
        return emit(op.multiply(emit(op.add(shared, x), "sum"), shared), "product")

    before, after, weights = _lifted(body)
    assert list(weights) == ["sum_w0"]
    _check(before, after, weights)


def test_the_limit_is_in_bytes() -> None:
    """15 float32 numbers stay, 16 leave; 63 bytes stay, 64 leave."""
    assert LEAST_LIFTED_BYTES == 64
    for dtype, stays, leaves in (("float32", 15, 16), ("int8", 63, 64)):
        for length, count in ((stays, 0), (leaves, 1)):
            inputs = {"x": ((2, length), dtype)}
            values = constant(1, (length,), dtype)
            before, after, weights = _lifted(lambda emit, x, c=values: emit(op.maximum(x, c), "y"), inputs)
            assert len(weights) == count
            assert len(_constants(after)) == 1 - count
            _check(before, after, weights, inputs)


def test_without_large_constants_nothing_changes() -> None:
    before, after, weights = _lifted(lambda emit, x: emit(op.add(x, relax.const(1.5, "float32")), "y"))
    assert weights == {}
    assert str(after["main"]) == str(before["main"])


def test_constants_in_tuples_and_outputs_are_lifted() -> None:
    rows, output = constant(1, (4, 16), "float32"), constant(2, (3, 7), "float32")

    def body(emit: Emit, x: Any) -> Any:
        return emit(relax.Tuple([emit(op.concat([x, rows]), "joined"), output]), "all")

    before, after, weights = _lifted(body)
    assert list(weights) == ["joined_w0", "all_w1"]
    _check(before, after, weights)


def test_the_module_given_is_left_as_it_is() -> None:
    before, _, weights = _lifted(lambda emit, x: emit(op.add(x, constant(1, (16,), "float32")), "y"))
    assert weights
    assert _names(before) == ["x"]
    assert len(_constants(before)) == 1


def test_lifting_twice_finds_nothing() -> None:
    _, after, _ = _lifted(lambda emit, x: emit(op.add(x, constant(1, (16,), "float32")), "y"))
    again, weights = lift_constants(after)
    assert weights == {}
    assert str(again) == str(after)


def test_attributes_stay() -> None:
    mod = Case("case", FLOATS, lambda emit, x: emit(op.add(x, constant(1, (16,), "float32")), "y")).module()
    mod.update_func(mod.get_global_var("main"), mod["main"].with_attr("num_input", 1))
    mod = mod.with_attr("engine", "fbgemm")
    after, _ = lift_constants(mod)
    assert int(after["main"].attrs["num_input"]) == 1
    assert after.attrs["engine"] == "fbgemm"


def test_packed_weights_of_a_kernel_are_lifted() -> None:
    selected, _ = select_kernels(SELECTED[0].module(), ISA)
    after, weights = lift_constants(selected)
    assert [name.split("_w")[0] for name in weights] == ["y1"] * len(weights)
    assert _names(after) == ["x", *weights]
    call = bindings_of(after["main"])[0].value
    small = [constant_array(field) for field in call.args[1].fields if is_constant(field)]
    assert all(array.nbytes < LEAST_LIFTED_BYTES for array in small)
    assert len(weights) + len(small) == len(call.args[1].fields) - 1
