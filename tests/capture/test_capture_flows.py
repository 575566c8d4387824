"""Every way to make and hand over a quantized model gives one graph, and its values are PyTorch's."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch

from qtorch_relay.capture.engine import ENGINES, quantized_engine
from qtorch_relay.capture.graph import ConvParams, Graph, LinearParams
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model, from_torch

# torch.jit.script says this of torch's own quantized modules.
pytestmark = pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning")

FORMS = ("module", "traced", "scripted", "frozen traced", "frozen scripted", "saved")
SHAPE = (2, 3, 17, 17)


def ops_of(graph: Graph) -> list[str]:
    return [node.op for node in graph.walk()]


def weights_of(graph: Graph) -> list[ConvParams | LinearParams]:
    operands = [operand for node in graph.walk() for operand in node.args.values()]
    return [operand for operand in operands if isinstance(operand, ConvParams | LinearParams)]


def scopes_of(graph: Graph) -> list[str]:
    # A trace does not see FloatFunctional as a module: it is called by its methods.
    return [node.scope for node in graph.walk() if not node.op.startswith("quantized::add")]


@pytest.mark.parametrize(("flow", "qat", "engine"), list(itertools.product(("eager", "fx"), (False, True), ENGINES)))
def test_all_flows_and_engines_give_pytorchs_result(make_small_model, flow, qat, engine):
    model = make_small_model(flow, engine, qat)
    captured = capture_model(model, [("x", SHAPE)], engine)
    example = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with quantized_engine(engine), torch.no_grad():
        assert torch.equal(run_reference(captured, [example]).output, model(example))
    assert captured.graph.engine == engine


@pytest.mark.parametrize(
    ("flow", "qat", "engine"),
    [("eager", False, "fbgemm"), ("fx", False, "onednn"), ("eager", True, "qnnpack"), ("fx", True, "x86")],
)
def test_all_forms_give_the_same_graph(make_small_model, as_form, flow, qat, engine):
    model = make_small_model(flow, engine, qat)
    example = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with quantized_engine(engine), torch.no_grad():
        expected = model(example)
        given = {form: as_form(model, form, example) for form in FORMS}
    captured = {form: capture_model(model, [("x", SHAPE)], engine) for form, model in given.items()}
    first = captured["module"].graph
    for form, other in captured.items():
        assert torch.equal(run_reference(other, [example]).output, expected), form
        assert ops_of(other.graph) == ops_of(first), form
        assert scopes_of(other.graph) == scopes_of(first), form
        for found, wanted in zip(weights_of(other.graph), weights_of(first), strict=True):
            np.testing.assert_array_equal(found.weight.codes, wanted.weight.codes)
            np.testing.assert_array_equal(found.bias, wanted.bias)
            assert found.name == wanted.name, form


def test_every_value_of_the_graph_is_in_the_reference_run(make_small_model):
    captured = capture_model(make_small_model("eager", "fbgemm"), [("x", SHAPE)], "fbgemm")
    run = run_reference(captured, {"x": torch.randn(SHAPE)})
    names = {value.name for node in captured.graph.walk() for value in node.outputs}
    assert names <= set(run.values)
    assert names


@pytest.mark.parametrize("engine", ENGINES)
def test_reference_runs_the_engine_asked_for(make_small_model, engine):
    """A model packed for one engine is packed anew for another, so its codes are those of a model loaded under it."""
    model = make_small_model("fx", "fbgemm")
    buffer = torch.jit.trace(model, torch.zeros(SHAPE)).save_to_buffer()
    captured = capture_model(model, [("x", SHAPE)], "fbgemm")
    with quantized_engine(engine), torch.no_grad():
        loaded = torch.jit.load(io.BytesIO(buffer))
        for seed in range(10):
            example = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(run_reference(captured, [example], engine).output, loaded(example))


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_are_the_same_whatever_engine_holds_them(make_small_model, as_form, engine):
    model = make_small_model("fx", "fbgemm")
    with quantized_engine(engine):
        loaded = as_form(model, "saved", torch.zeros(SHAPE))
    graphs = (from_torch(model, [("x", SHAPE)], "fbgemm"), from_torch(loaded, [("x", SHAPE)], engine))
    for wanted, found in zip(*map(weights_of, graphs), strict=True):
        np.testing.assert_array_equal(found.weight.codes, wanted.weight.codes)
        np.testing.assert_array_equal(found.weight.qparams.scales, wanted.weight.qparams.scales)
        np.testing.assert_array_equal(found.bias, wanted.bias)


def test_the_users_model_is_not_changed(make_small_model):
    model = make_small_model("eager", "fbgemm").train()
    script = torch.jit.script(model)
    before = str(script.graph)
    engine = torch.backends.quantized.engine
    from_torch(script, [("x", SHAPE)], "qnnpack")
    from_torch(model, [("x", SHAPE)], "qnnpack")
    assert str(script.graph) == before
    assert model.training
    assert model.blocks[0].training
    assert torch.backends.quantized.engine == engine


def test_a_traced_model_can_be_imported_for_another_shape(make_small_model):
    model = make_small_model("eager", "fbgemm")
    script = torch.jit.trace(model, torch.zeros(SHAPE))
    example = torch.randn(1, 3, 33, 21)
    captured = capture_model(script, [("x", example.shape)], "fbgemm")
    assert torch.equal(run_reference(captured, [example]).output, model(example))
