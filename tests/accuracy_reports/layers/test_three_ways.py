"""A fault is found in the layer that it was planted in, and told as what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from accuracy_reports.layers.blame import blame, sentences, split, worst_first
from accuracy_reports.layers.gaps import CodeSums, GapSums, View, view_floats
from accuracy_reports.layers.three_ways import ThreeWays, compare_three_ways
from accuracy_reports.record import Layers, parse_record, to_json
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.qparams import PerTensor
from tests.accuracy_reports.layers.nets import BLOCKS, INPUTS, LAYERS, Net, images, make, plant
from tests.accuracy_reports.records import record
from tests.frontend.models import UNOPTIMIZED

FLOWS = ("eager", "fx")
BATCHES = 2
FX_FAULTS = (("fx", "left.0", "weight"), ("fx", "head", "weight"), ("fx", "mix.0", "output"))


def captured(module: nn.Module) -> CapturedModel:
    return capture_model(module, INPUTS, "fbgemm")


def compare(flow: str, int8: nn.Module, program: nn.Module | None = None) -> Layers:
    graph = None if program is None else captured(program).graph
    run = ThreeWays(captured(int8), captured(make(flow)[0]), UNOPTIMIZED, program=graph)
    for seed in range(2, 2 + BATCHES):
        run.add([images(seed).numpy()])
    return run.layers("the float network")


@cache
def sound(flow: str) -> Layers:
    return compare(flow, make(flow)[1])


@pytest.mark.parametrize("flow", FLOWS)
def test_every_layer_has_its_counterpart(flow: str) -> None:
    layers = sound(flow)
    assert [layer.missing for layer in layers.layers] == [None] * len(layers.layers)
    found = {layer.scope: layer.counterpart for layer in layers.layers if layer.op.startswith("quantized::conv")}
    assert found == {f"{block}.0": f"{block}.2" for block in BLOCKS}
    assert layers.images == 2 * BATCHES


@pytest.mark.parametrize("flow", FLOWS)
def test_a_sound_model_loses_by_quantization_alone(flow: str) -> None:
    layers = sound(flow)
    found = blame(layers)
    assert found.first_differing is None
    assert found.compiler == ()
    for layer in layers.layers:
        assert layer.quantization is not None
        assert layer.total == layer.quantization
        assert layer.quantization.sqnr_db is None or layer.quantization.sqnr_db > 20
        shares = split(layer)
        assert shares is None or shares.compiler == 0
    text = " ".join(sentences(layers))
    assert "none of" in text
    assert "100.0% is quantization and 0.0% the compiler" in text


@pytest.mark.parametrize(
    ("flow", "name", "fault"),
    [*(("eager", name, fault) for name in LAYERS for fault in ("weight", "output")), *FX_FAULTS],
)
def test_a_wrong_scale_in_the_quantized_model_is_blamed_on_its_layer(flow: str, name: str, fault: str) -> None:
    layers = compare(flow, plant(make(flow)[1], name, fault))
    found = blame(layers)
    assert found.quantization[0].scope == name
    assert worst_first(layers.layers)[0].scope == name
    assert found.compiler == ()
    assert f"Quantization: {name} " in " ".join(sentences(layers))


@pytest.mark.parametrize(
    ("flow", "name"), [*(("eager", name) for name in LAYERS), *((flow, name) for flow, name, _ in FX_FAULTS[:2])]
)
def test_a_wrong_scale_in_the_compiled_program_is_blamed_on_its_layer(flow: str, name: str) -> None:
    layers = compare(flow, make(flow)[1], plant(make(flow)[1], name, "weight"))
    found = blame(layers)
    assert [layer.scope for layer in found.compiler] == [name]
    assert found.first_differing == found.compiler[0]
    assert worst_first(layers.layers)[0].scope == name
    guilty = found.compiler[0]
    assert guilty.ours is not None
    assert guilty.ours != guilty.theirs
    assert guilty.own_compiler == guilty.compiler.differing
    shares = split(guilty)
    assert shares is not None
    assert shares.compiler > 0.5
    assert f"first in {name} " in sentences(layers)[0]
    # what the quantized model itself loses is not blamed on the fault of the compiler
    assert (
        found.quantization[0].own_quantization == blame(compare(flow, make(flow)[1])).quantization[0].own_quantization
    )


def test_without_a_float_model_only_the_compiler_is_judged() -> None:
    layers = compare_three_ways(make("eager")[1], None, INPUTS, [[images(2).numpy()]], "fbgemm", UNOPTIMIZED)
    assert all(layer.quantization is None and layer.missing == "there is no float model" for layer in layers.layers)
    assert "no float model" in sentences(layers)[1]


def test_a_layer_without_counterpart_is_named_and_the_others_are_found_by_name() -> None:
    class Other(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            y = self.mix(torch.cat([self.left(x), torch.tanh(self.right(x))], 1))
            result: torch.Tensor = self.head((x + y).mean((2, 3)))
            return result

    other = Other(stubs=False).eval()
    other.load_state_dict(make("eager")[0].state_dict())
    run = ThreeWays(captured(make("eager")[1]), captured(other), UNOPTIMIZED)
    run.add([images(2).numpy()])
    layers = run.layers("other").layers
    lost = [layer for layer in layers if layer.missing is not None]
    assert [layer.op for layer in lost] == ["quantized::cat"]
    assert lost[0].missing == "the float model has no cat that reads the same"
    assert lost[0].quantization is None
    mix = next(layer for layer in layers if layer.scope == "mix.0")
    assert mix.counterpart == "mix.2"
    assert mix.own_quantization is None  # what the float layer reads has no counterpart


def test_no_images_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="give at least one"):
        compare_three_ways(make("eager")[1], None, INPUTS, [], "fbgemm", UNOPTIMIZED)


def test_layers_go_through_a_record() -> None:
    layers = sound("eager")
    text = to_json(record(layers=layers))
    assert parse_record(text).layers == layers
    assert json.loads(text)["layers"]["layers"][1]["scope"] == "stem.0"


def test_sums_over_batches_are_those_of_all_at_once() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 50)).astype(np.float32)
    b = (a + 0.01 * rng.normal(size=a.shape)).astype(np.float32)
    b[0] = a[0]
    qparams = PerTensor(0.05, 3, "int8")
    whole, parts = GapSums(0.05), GapSums(0.05)
    whole.add(view_floats(a, qparams), view_floats(b, qparams))
    parts.add_equal(view_floats(a[:1], qparams))
    for row in range(1, 6):
        parts.add(view_floats(a[row], qparams), view_floats(b[row], qparams))
    one, many = whole.gap(), parts.gap()
    assert one.sqnr_db == pytest.approx(many.sqnr_db)
    assert replace(one, sqnr_db=0.0, cosine=0.0, mean_error_steps=0.0) == replace(
        many, sqnr_db=0.0, cosine=0.0, mean_error_steps=0.0
    )
    # against the definitions, in plain numpy
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert one.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()))
    assert one.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    assert one.largest_error_steps == pytest.approx(np.abs(x - y).max() / 0.05)
    assert one.mean_error_steps == pytest.approx(np.abs(x - y).mean() / 0.05)
    assert one.differing == np.count_nonzero(
        np.clip(np.rint(x / 0.05) + 3, -128, 127) != np.clip(np.rint(y / 0.05) + 3, -128, 127)
    )


def test_undefined_numbers_are_none() -> None:
    zeros, ones = View(np.zeros(4), None), View(np.ones(4), None)
    silent, equal = GapSums(None), GapSums(None)
    silent.add(zeros, ones)
    equal.add(ones, ones)
    gap = silent.gap()
    assert (gap.sqnr_db, gap.cosine, gap.largest_error_steps, gap.differing) == (None, None, None, 4)
    assert (equal.gap().sqnr_db, equal.gap().differing) == (None, 0)
    infinite = GapSums(1.0)
    infinite.add(View(np.array([np.inf, 1.0, np.nan]), None), View(np.array([1.0, 1.0, np.nan]), None))
    assert (infinite.gap().differing, infinite.gap().largest_error_steps) == (1, 0.0)


def test_saturation_leaves_the_zero_point_out() -> None:
    sums = CodeSums(PerTensor(0.1, 0, "uint8"))
    sums.add(np.array([[0, 0, 255], [1, 255, 254]], np.uint8))
    counts = sums.code_counts()
    assert (counts.saturated, counts.histogram[0], counts.histogram[255]) == (2, 2, 2)
    signed = CodeSums(PerTensor(0.1, 0, "int8"))
    signed.add(np.array([-128, 127, 0], np.int8))
    assert signed.code_counts().saturated == 2
