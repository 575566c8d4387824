"""Relay text in a real TVM with Relay: parsed, type-checked, built, run, compared with PyTorch.

Small programs; `make relay-era` runs whole networks, and `python -m tests.relay.rows` every row of the op matrix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from accuracy_reports.relay_era.job import RelayEraError, check_texts, interpreter, run_text
from accuracy_reports.relay_era.networks import DEFAULT, EXACT, LAYERS, PEER, run_network
from accuracy_reports.relay_era.rows import misses_of
from qtorch_relay._tvm import relax
from qtorch_relay.frontend.importer import ImportedModule
from qtorch_relay.numerics.dynamic import choose_scale
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.params import save_params
from qtorch_relay.relay.text import imported_text
from qtorch_relay.tir import qparams
from tests.qnn.relay_cases import CASES, RelayCase
from tests.qnn.relay_comparison import program
from tests.relay.programs import SHAPE, digits_network
from tests.relay.rows import matrix, run_rows, type_errors

pytestmark = pytest.mark.skipif(
    not interpreter(), reason="QTORCH_RELAY_ERA_PYTHON names no interpreter of a TVM that has Relay"
)
NO_PARAMS = save_params({})
# Each stands for a way that ops are written.
CHOSEN = ("quantized::conv2d", "quantized::add_relu", "quantized::mul", "quantized::hardswish")
# Each met something of Relay's once: no dilation, NaN in a bound, an int64 literal that is cast to int32.
ONCE_MISSED = (
    "quantized::conv_transpose2d[2d-k3x2s1x3p1x0d1x2-per_tensor-asymmetric]",
    "aten::_fake_quantize_learnable_per_tensor_affine[1e-08-0--128-127]",
    "aten::quantize_per_tensor[qint32-1.0--2147483648]",
)


def test_rows_of_the_matrix() -> None:
    cases = matrix()
    chosen = [next(case for case in cases if case.op == op) for op in CHOSEN]
    chosen += [next(case for case in cases if case.id == name) for name in ONCE_MISSED]
    rows = run_rows(chosen)
    assert [row.id for row in rows if not row.modes] == []
    assert misses_of(rows) == []


def test_rows_are_well_typed() -> None:
    assert type_errors(matrix()[::40]) == []


def test_relays_own_ops_are_well_typed() -> None:
    cases = {(case.op, case.variant): case for cases in CASES.values() for case in cases}
    errors = check_texts([relay_text(case) for case in cases.values()])
    assert [f"{name}: {error}" for name, error in zip(cases, errors, strict=True) if error] == []


def relay_text(case: RelayCase) -> str:
    """Returns the text of a call of an op of the dialect with Relay's arithmetic."""
    mod, _ = program([case])
    return imported_text(ImportedModule(mod, {}, ()), Options())[0]


@pytest.mark.parametrize("bounds", [(0, 127), (-128, 127)])
def test_scale_and_zero_point_of_a_range(bounds: tuple[int, int]) -> None:
    ranges = ranges_of_values()
    with np.errstate(over="ignore"):
        expected = [choose_scale(low, high, *bounds) for low, high in ranges]
    # written for one range, and run on all: elementwise ops are the same on a vector
    text = text_of_choice(*bounds).replace("Tensor[()", f"Tensor[({len(ranges)})")
    scales, zero_points = run_text(text, NO_PARAMS, {"low": ranges[:, 0], "high": ranges[:, 1]}).outputs
    np.testing.assert_array_equal(scales, np.array([scale for scale, _ in expected]))
    np.testing.assert_array_equal(zero_points, np.array([zero_point for _, zero_point in expected]))


def ranges_of_values() -> npt.NDArray[np.float32]:
    """Returns ranges of all magnitudes, on both sides of 0, on one, empty, infinite, and with ties of zero points."""
    rng = np.random.default_rng(0)
    ends = np.abs(rng.normal(size=(2000, 2))) * 10.0 ** rng.uniform(-44, 37, (2000, 1)) * [-1, 1]
    ends[::10, 0] = ends[1::10, 1] = 0
    steps = rng.integers(0, 128, (500, 1)) + 0.5
    ties = np.hstack([-steps, 127 - steps]) * 2.0 ** rng.integers(-40, 40, (500, 1))
    special = [[0, 0], [1, 2], [-2, -1], [-np.inf, 1], [-1, np.inf], [-np.inf, np.inf], [0, np.inf], [-3e38, 3e38]]
    return np.concatenate([ends, ties, special]).astype(np.float32)


def text_of_choice(least: int, greatest: int) -> str:
    """Returns the text of a module that chooses the float64 scale and the zero point of a range (low, high)."""
    builder = relax.BlockBuilder()
    low, high = (relax.Var(name, relax.TensorType((), "float32")) for name in ("low", "high"))
    with builder.function("main", [low, high]):
        with builder.dataflow():
            scale = builder.emit(qparams.choose_scale(low, high, least, greatest, "float64"))
            zero_point = builder.emit(qparams.choose_zero_point(low, high, least, greatest))
            result = builder.emit_output(relax.Tuple([scale, zero_point]))
        builder.emit_func_output(result)
    return imported_text(ImportedModule(builder.finalize(), {}, ()), Options())[0]


def test_the_demos_network() -> None:
    images = np.random.default_rng(1).normal(size=(32, *SHAPE[1:])).astype(np.float32)
    programs = (DEFAULT, EXACT, LAYERS, PEER)
    runs = {run.program: run for run in run_network("digits", digits_network(), images, "fbgemm", programs)}
    for run in (runs[DEFAULT], runs[EXACT]):
        assert (run.error, run.differing, run.same_top1) == ("", 0, True)
    assert runs[LAYERS].error == ""
    assert runs[LAYERS].differing <= 0.001 * runs[LAYERS].elements
    assert runs[PEER].error or runs[PEER].differing > 0


def test_a_program_that_relay_refuses_is_an_error_with_its_words() -> None:
    text = '#[version = "0.0.5"]\ndef @main(%x: Tensor[(2), float32]) { no_such_op(%x) }'
    with pytest.raises(RelayEraError, match="no_such_op"):
        run_text(text, NO_PARAMS, {"x": np.zeros(2, np.float32)})
