"""Each rule of convert_to_channels_last: before/after pairs of text, and the same codes, tolerance 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay import qnn
from qtorch_relay._tvm import relax
from qtorch_relay.lowering.channels_last import RULES, convert_to_channels_last, to_last, to_planar
from qtorch_relay.lowering.rebuild import bindings_of, op_name
from qtorch_relay.numerics.core import concatenate_table
from qtorch_relay.qnn.printer import to_text
from qtorch_relay.qnn.verify import verify
from qtorch_relay.qparams import PerTensor
from tests.lowering.build import (
    Arrays,
    Case,
    Emit,
    assert_same_results,
    compile_all,
    constant,
    lines,
    to_codes,
    typed_line,
)

GOLDEN = Path(__file__).parent / "channels_last.golden.txt"
MAPS = (2, 8, 5, 3)
CUBE = (2, 4, 4, 4)  # a constant that broadcasts along a wrong dimension has a legal shape here
EVEN = {"rounding": "TONEAREST_EVEN"}
X, Y = PerTensor(0.03, 5, "uint8"), PerTensor(0.05, 9, "uint8")
PARAMETERS = (X.scale, X.zero_point, Y.scale, Y.zero_point, 0.08, 3)
TO_Y = concatenate_table(X, Y, vectorized=True, channels_last=True)
AS_IS = np.arange(256).astype(np.uint8)
op = relax.op


def _twin(emit: Emit, x: Any, name: str = "t") -> Any:
    """Returns a copy that exists in channels-last form only."""
    return emit(op.nn.max_pool2d(x), name)


def _on_twin(name: str, body: Callable[[Any], Any], shape: tuple[int, ...] = MAPS, dtype: str = "uint8") -> Case:
    """A case of one op on a twin."""
    return Case(name, {"x": (shape, dtype)}, lambda emit, x: emit(body(_twin(emit, x)), "y"))


def _on_planar(name: str, body: Callable[[Any], Any], shape: tuple[int, ...] = MAPS, dtype: str = "uint8") -> Case:
    """A case of one op on an input."""
    return Case(name, {"x": (shape, dtype)}, lambda emit, x: emit(body(x), "y"))


def _conv(x: Any, kernel_zero_point: Any = 0, **options: Any) -> Any:
    weight = constant(1, (6, 8 // options.get("groups", 1), 3, 3), "int8")
    return qnn.conv2d(x, weight, 9, kernel_zero_point, 0.5, 0.25, (3, 3), 6, **options)


def _add(a: Any, b: Any) -> Any:
    return qnn.add(a, b, *PARAMETERS, arithmetic="float32", **EVEN)


def _mul(a: Any, b: Any) -> Any:
    return qnn.mul(a, b, *PARAMETERS, arithmetic="float32", factors={"multiplier": np.float32(0.02)}, **EVEN)


def _avg_pool(x: Any) -> Any:
    return qnn.avg_pool2d(x, 0.5, 7, 0.5, 7, (2, 3), (1, 1), (0, 1), layout="NCHW", arithmetic="scaled", factor=1 / 6)


def _square(x: Any) -> Any:
    return qnn.lookup(x, ((np.arange(256) ** 2) // 257).astype(np.uint8), 0.5, 0, 0.5, 0, "square")


def _both(name: str, body: Callable[[Any, Any], Any], shape_b: tuple[int, ...] = MAPS, *, twins: str = "ab") -> Case:
    """A case of one op on two inputs; twins says which of them exist in channels-last form."""

    def whole(emit: Emit, a: Any, b: Any) -> Any:
        a = _twin(emit, a, "s") if "a" in twins else a
        b = _twin(emit, b, "t") if "b" in twins else b
        return emit(body(a, b), "y")

    return Case(name, {"a": (MAPS, "uint8"), "b": (shape_b, "uint8")}, whole)


def _concatenate(fields: list[Any], axis: int, tables: np.ndarray[Any, Any] | None) -> Any:
    points = [X.zero_point] * len(fields)
    return qnn.concatenate(fields, [X.scale] * len(fields), points, Y.scale, Y.zero_point, axis, tables=tables)


def _shuffle(emit: Emit, x: Any) -> Any:
    split = emit(op.reshape(_twin(emit, x), (2, 2, 4, 5, 3)), "split")
    swapped = emit(op.permute_dims(split, [0, 2, 1, 3, 4]), "swapped")
    return emit(op.reshape(swapped, MAPS), "y")


def _swap(axes: list[int]) -> Callable[..., Any]:
    def body(emit: Emit, x: Any) -> Any:
        split = emit(op.reshape(_twin(emit, x), (2, 2, 4, 5, 3)), "split")
        return emit(op.permute_dims(split, axes), "y")

    return body


def _merge_of_split(shape: tuple[int, ...]) -> Callable[..., Any]:
    def body(emit: Emit, x: Any) -> Any:
        split = emit(op.reshape(_twin(emit, x), (2, 2, 4, 5, 3)), "split")
        return emit(op.reshape(split, shape), "y")

    return body


# y, the last value of each, is computed on a channels-last twin
FIRES = (
    _on_planar("conv2d", lambda x: _conv(x, padding=(1, 1))),
    _on_planar("conv2d_grouped_strided", lambda x: _conv(x, groups=2, strides=(2, 1), padding=(0, 1, 2, 1))),
    _on_planar("conv2d_per_channel_zero_points_of_0", lambda x: _conv(x, [0] * 6)),
    _on_planar("avg_pool2d", _avg_pool),
    _on_planar("max_pool2d", lambda x: op.nn.max_pool2d(x, (2, 3), (2, 1), (1, 1, 0, 1))),
    _on_planar("max_pool2d_ceil", lambda x: op.nn.max_pool2d(x, (2, 2), (2, 2), (1, 1), ceil_mode=True)),
    _on_planar("max_pool2d_dilated", lambda x: op.nn.max_pool2d(x, (2, 2), dilation=(2, 1))),
    _on_planar("max_pool2d_of_floats", lambda x: op.nn.max_pool2d(x, (2, 2)), dtype="float32"),
    _on_twin("requantize_per_channel", lambda t: to_codes(t, 8, axis=1), dtype="int32"),
    _on_twin("requantize_negative_axis", lambda t: to_codes(t, 8, axis=-3), dtype="int32"),
    _on_twin("requantize_per_row", lambda t: to_codes(t, 5, axis=2), dtype="int32"),
    _on_twin("dequantize", lambda t: qnn.dequantize(t, 0.3, 4)),
    _on_twin("dequantize_per_channel", lambda t: qnn.dequantize(t, np.arange(1, 9) / 8, np.arange(8), axis=1)),
    _on_twin("lookup", _square),
    _both("add", _add),
    _both("add_one_twin", _add, twins="a"),
    _both("add_broadcast", _add, (2, 8, 1, 1)),
    _on_twin("add_constant_of_rank_4", lambda t: _add(t, constant(3, (1, 4, 1, 1), "uint8")), CUBE),
    _both("mul", _mul),
    _both("mul_by_channel", _mul, (2, 8, 1, 1), twins="b"),
    _both("relax_add", op.add),
    _on_twin("relax_add_scalar", lambda t: op.add(t, relax.const(7, "int32")), dtype="int32"),
    _on_twin("relax_add_one_number_of_rank_3", lambda t: op.add(t, constant(3, (1, 1, 1), "int32")), dtype="int32"),
    _on_twin("relax_add_rank_4", lambda t: op.add(t, constant(3, (1, 4, 1, 1), "int32")), CUBE, "int32"),
    _on_twin("relax_add_rank_4_on_the_left", lambda t: op.add(constant(3, (1, 4, 1, 1), "int32"), t), CUBE, "int32"),
    _on_twin("relax_add_rank_4_of_rows", lambda t: op.add(t, constant(3, (1, 1, 4, 1), "int32")), CUBE, "int32"),
    _on_twin("relax_maximum", lambda t: op.maximum(t, relax.const(7, "uint8"))),
    _on_twin("relax_minimum", lambda t: op.minimum(t, constant(3, (2, 1, 5, 3), "uint8"))),
    _both("concatenate_tables", lambda a, b: _concatenate([a, b], 1, np.stack([TO_Y, AS_IS]))),
    _both("concatenate_tables_one_twin", lambda a, b: _concatenate([a, b], 1, np.stack([AS_IS, TO_Y])), twins="b"),
    _both("concatenate_tables_columns", lambda a, b: _concatenate([a, b], 3, np.stack([TO_Y, TO_Y])), (2, 8, 5, 7)),
    _both("concatenate_relay", lambda a, b: _concatenate([a, b], 1, None), (2, 2, 5, 3)),
    _on_twin("strided_slice", lambda t: op.strided_slice(t, [1], [2], [6])),
    _on_twin("strided_slice_strides", lambda t: op.strided_slice(t, [1, 3], [1, 0], [8, 3], [3, 2])),
    _on_twin("strided_slice_negative_axis", lambda t: op.strided_slice(t, [-3, -1], [0, 1], [4, 3])),
    _on_twin("reshape_splits_channels", lambda t: op.reshape(t, (2, 2, 4, 5, 3))),
    Case("reshape_merges_channels", {"x": (MAPS, "uint8")}, _merge_of_split(MAPS)),
    Case("permute_split_channels", {"x": (MAPS, "uint8")}, _swap([0, 2, 1, 3, 4])),
    Case("channel_shuffle", {"x": (MAPS, "uint8")}, _shuffle),
    _on_twin("flatten_of_1x1_maps", lambda t: op.reshape(t, (2, 8)), (2, 8, 1, 1)),
)

# y stays planar, although its data may have a twin
STAYS = (
    _on_twin("conv2d_asymmetric", lambda t: _conv(t, 3)),
    _on_twin("conv2d_asymmetric_per_channel", lambda t: _conv(t, [0, 0, 0, 0, 0, -1])),
    _on_planar("requantize_of_planar_data", lambda x: to_codes(x, 8, axis=1), dtype="int32"),
    _on_planar("requantize_of_a_matrix", lambda x: to_codes(x, 8, axis=1), (4, 8), "int32"),
    _on_planar("dequantize_of_planar_data", lambda x: qnn.dequantize(x, 0.3, 4)),
    _on_planar("lookup_of_planar_data", _square),
    _both("add_of_planar_data", _add, twins=""),
    _both("add_of_lower_rank", _add, (5, 3), twins="a"),
    _on_twin("add_constant_of_rank_3", lambda t: _add(t, constant(3, (4, 1, 1), "uint8")), CUBE),
    _on_twin("mul_constant_of_rank_1", lambda t: _mul(t, constant(3, (4,), "uint8")), CUBE),
    _both("relax_add_of_planar_data", op.add, twins=""),
    _on_twin("relax_add_rank_1", lambda t: op.add(t, constant(3, (4,), "int32")), CUBE, "int32"),
    _on_twin("relax_add_rank_2", lambda t: op.add(t, constant(3, (4, 4), "int32")), CUBE, "int32"),
    _on_twin("relax_add_rank_3", lambda t: op.add(t, constant(3, (4, 1, 1), "int32")), CUBE, "int32"),
    _on_twin("relax_add_rank_5", lambda t: op.add(t, constant(3, (1, 1, 1, 1, 1), "int32")), CUBE, "int32"),
    _on_twin("relax_maximum_rank_3", lambda t: op.maximum(t, constant(3, (4, 1, 4), "int32")), CUBE, "int32"),
    _both("concatenate_of_planar_data", lambda a, b: _concatenate([a, b], 1, np.stack([TO_Y, AS_IS])), twins=""),
    _on_planar("strided_slice_of_planar_data", lambda x: op.strided_slice(x, [1], [2], [6])),
    _on_planar("reshape_of_planar_data", lambda x: op.reshape(x, (2, 2, 4, 5, 3))),
    _on_twin("reshape_splits_rows", lambda t: op.reshape(t, (2, 8, 5, 3, 1))),
    _on_twin("reshape_mixes_channels_and_rows", lambda t: op.reshape(t, (2, 5, 8, 3))),
    _on_twin("flatten_of_larger_maps", lambda t: op.reshape(t, (2, 120))),
    _on_twin("flatten_of_batch_and_channels", lambda t: op.reshape(t, (16,)), (2, 8, 1, 1)),
    Case("reshape_merges_other_dimensions", {"x": (MAPS, "uint8")}, _merge_of_split((2, 2, 20, 3))),
    Case("permute_other_dimensions", {"x": (MAPS, "uint8")}, _swap([0, 1, 2, 4, 3])),
    _on_twin("permute_of_whole_channels", lambda t: op.permute_dims(t, [0, 1, 3, 2])),
    _on_twin("op_without_a_rule", lambda t: op.astype(t, "int32")),
)


def _tuple(emit: Emit, x: Any) -> Any:
    """A planar and a converted output, one of them read twice."""
    t = _twin(emit, x)
    y = emit(_square(t), "y")
    halves = emit(op.split(y, 2, axis=1), "halves")
    first = emit(relax.TupleGetItem(halves, 0), "first")
    return emit(relax.Tuple([t, first, emit(_add(y, t), "z")]), "all")


WHOLE = (Case("outputs_and_splits_are_planar", {"x": (MAPS, "uint8")}, _tuple),)
CASES = (*FIRES, *STAYS, *WHOLE)


def _ids(cases: tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


def test_pairs_are_the_golden_ones(request: pytest.FixtureRequest) -> None:
    parts = []
    for case in CASES:
        before = case.module()
        parts += [f"==== {case.name}", *lines(before), "----", *lines(convert_to_channels_last(before))]
    text = "\n".join(parts) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize("case", CASES, ids=_ids(CASES))
def test_types_do_not_change(case: Case) -> None:
    before = case.module()
    verify(before)
    after = convert_to_channels_last(before)
    verify(after)
    assert str(after["main"].ret_ty) == str(before["main"].ret_ty)


# test_rule_does_not_fire finds the others unchanged
CONVERTED = tuple(case for case in CASES if not case.name.endswith("_of_planar_data"))


@pytest.fixture(scope="module")
def run() -> Callable[..., Arrays]:
    """(name, inputs) -> outputs of each case as it is, and of its conversion, whose name ends in _nhwc."""
    after = {f"{case.name}_nhwc": convert_to_channels_last(case.module()) for case in CONVERTED}
    return compile_all({**{case.name: case.module() for case in CONVERTED}, **after})


@pytest.mark.parametrize("case", CONVERTED, ids=_ids(CONVERTED))
def test_codes_do_not_change(case: Case, run: Callable[..., Arrays]) -> None:
    assert_same_results(run(f"{case.name}_nhwc", case.arrays()), run(case.name, case.arrays()))


@pytest.mark.parametrize("case", FIRES, ids=_ids(FIRES))
def test_rule_fires(case: Case) -> None:
    line = typed_line(convert_to_channels_last(case.module()), "y")
    assert "_nchw" not in line
    assert line != typed_line(case.module(), "y") or case.name.startswith("flatten")


@pytest.mark.parametrize("case", STAYS, ids=_ids(STAYS))
def test_rule_does_not_fire(case: Case) -> None:
    before, after = case.module(), convert_to_channels_last(case.module())
    assert typed_line(after, "y").replace("_nchw", "") == typed_line(before, "y")
    if "_nhwc" in to_text(after):
        assert "_nchw" in typed_line(after, "y")
    else:
        assert lines(after) == lines(before)


def test_every_rule_has_a_case_that_fires() -> None:
    used = {op_name(bindings_of(case.module()["main"])[-2].value) for case in FIRES}
    assert used == set(RULES)


@pytest.mark.parametrize("case", CASES, ids=_ids(CASES))
def test_converting_twice_changes_nothing(case: Case) -> None:
    once = convert_to_channels_last(case.module())
    assert lines(convert_to_channels_last(once)) == lines(once)


def test_a_twin_is_made_once() -> None:
    def body(emit: Emit, x: Any) -> Any:
        return emit(_add(emit(_avg_pool(x), "a"), emit(_avg_pool(x), "b")), "y")

    after = convert_to_channels_last(Case("two_readers", {"x": (MAPS, "uint8")}, body).module())
    assert sum("permute_dims" in line for line in lines(after)) == 2  # x to the twin, y to the output


def test_attributes_and_parameters_of_main_stay() -> None:
    mod = FIRES[0].module()
    mod.update_func(mod.get_global_var("main"), mod["main"].with_attr("num_input", 1))
    after = convert_to_channels_last(mod)
    assert int(after["main"].attrs["num_input"]) == 1
    assert [param.name for param in after["main"].params] == ["x"]


@pytest.mark.parametrize(("rank", "channels"), [(4, 1), (5, 2), (3, 1)])
def test_the_permutations_are_inverse(rank: int, channels: int) -> None:
    there, back = to_last(rank, channels), to_planar(rank, channels)
    assert [there[axis] for axis in back] == list(range(rank))
