"""What a captured graph holds: constants, packed params, structure, provenance, folded and kept control flow."""

# No `from __future__ import annotations`: torch.jit.script cannot read annotations that are strings.
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as nnq
from torch import nn

from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.graph import ConvParams, Graph, LinearParams, Node, QuantizedConstant, TensorConstant, Value
from qtorch_relay.capture.reference import run_reference
from qtorch_relay.capture.torchscript import capture_model, from_torch
from qtorch_relay.errors import InvalidInputError, UnsupportedOpError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import PerChannel

pytestmark = pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning")


@pytest.fixture(autouse=True)
def _fbgemm():
    with quantized_engine("fbgemm"):  # weights are packed for the engine that is set
        yield


def quantize(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 0.05, 64, torch.quint8)


def check(model: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    """Captures a model, compares the reference run with the model itself, and returns the graph."""
    captured = capture_model(model, [(f"x{i}", shape) for i, shape in enumerate(shapes)], "fbgemm")
    examples = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in shapes]
    expected = model(*(example.clone() for example in examples))
    torch.testing.assert_close(run_reference(captured, examples).output, expected, rtol=0, atol=0)
    return captured.graph


def only(graph: Graph, name: str) -> Node:
    (node,) = (node for node in graph.walk() if node.name == name)
    return node


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nnq.Conv2d(4, 4, 3, padding=1)
        self.conv.scale, self.conv.zero_point = 0.1, 60

    def forward(self, x):
        return self.conv(x)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Conv()
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(quantize(x))).dequantize()


def freeze(model: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.freeze(torch.jit.script(model.eval()))


@pytest.mark.parametrize("form", [nn.Module.eval, torch.jit.script, freeze])
def test_shared_module_is_one_object(form):
    graph = from_torch(form(Shared()), [("x", (1, 4, 6, 6))], "fbgemm")
    first, second = (n.args["packed_weight"] for n in graph.nodes if n.name == "quantized::conv2d")
    assert isinstance(first, ConvParams)
    assert first is second
    assert first.name in ("first.conv._packed_params", "second.conv._packed_params")  # a trace keeps one path


CONVS = [nnq.Conv1d, nnq.Conv2d, nnq.Conv3d, nnq.ConvTranspose1d, nnq.ConvTranspose2d, nnq.ConvTranspose3d]


class OneConv(nn.Module):
    def __init__(self, kind: type[nn.Module], dims: int) -> None:
        super().__init__()
        self.conv = kind(4, 6, 3, stride=2, padding=1, dilation=1, groups=2)
        weight = torch.randint(-127, 128, self.conv.weight().shape, dtype=torch.int8)
        quantized = torch._make_per_tensor_quantized_tensor(weight, 0.02, 0)
        if "Transpose" not in kind.__name__:
            zero_points = torch.tensor([0, 3, -4, 5, 0, 1])
            quantized = torch._make_per_channel_quantized_tensor(weight, torch.rand(6) + 0.01, zero_points, 0)
        self.conv.set_weight_bias(quantized, torch.randn(6))
        self.conv.scale, self.conv.zero_point = 0.5, 100

    def forward(self, x):
        return self.conv(quantize(x)).dequantize()


@pytest.mark.parametrize("kind", CONVS)
def test_convolutions_unpack_to_their_own_dimensions(kind):
    torch.manual_seed(0)
    dims = int(kind.__name__[-2])
    model = OneConv(kind, dims)
    graph = check(model, (1, 4, *(5,) * dims))
    params = next(a for n in graph.nodes for a in n.args.values() if isinstance(a, ConvParams))
    np.testing.assert_array_equal(params.weight.codes, model.conv.weight().int_repr().numpy())
    np.testing.assert_array_equal(params.bias, model.conv.bias().numpy())
    assert params.stride == (2,) * dims
    assert params.padding == params.dilation == (1,) * dims
    assert params.output_padding == (0,) * dims
    assert params.groups == 2
    assert params.transpose == ("Transpose" in kind.__name__)
    if not params.transpose:
        assert isinstance(params.weight.qparams, PerChannel)
        assert params.weight.qparams.zero_points.tolist() == [0, 3, -4, 5, 0, 1]
        assert params.weight.qparams.axis == 0
        expected = model.conv.weight().q_per_channel_scales().numpy()
        np.testing.assert_array_equal(params.weight.qparams.scales, expected)


class Dynamic(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc = torch.ao.nn.quantized.dynamic.Linear(8, 3, dtype=dtype)

    def forward(self, x):
        return self.fc(x)


def test_dynamic_linear_unpacks():
    params = only(check(Dynamic(torch.qint8), (2, 8)), "quantized::linear_dynamic").args["W_prepack"]
    assert isinstance(params, LinearParams)
    assert params.weight.codes.shape == (3, 8)


def test_float16_weights_are_refused_with_their_place():
    with pytest.raises(UnsupportedQuantSchemeError, match=r"fc.*dynamic_fp16.*test_capture_graph.py:\d+.*float16"):
        from_torch(Dynamic(torch.float16), [("x", (2, 8))], "fbgemm")


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nnq.Embedding(10, 4)

    def forward(self, x):
        return self.embed(x)


def test_unknown_packed_params_are_refused():
    with pytest.raises(UnsupportedQuantSchemeError, match=r"embed\..*EmbeddingPackedParamsBase; accepted"):
        from_torch(Embed(), [("x", ((5,), "int64"))], "fbgemm")


class Constants(nn.Module):
    """An attribute named like FX's scales, and a quantized tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("layer_scale_0", torch.tensor([0.5, 2.0, 1.0]))
        self.register_buffer("codes", quantize(torch.randn(3)))

    def forward(self, x):
        return torch.ops.quantized.add(quantize(x * self.layer_scale_0), self.codes, 0.1, 3).dequantize()


def test_tensors_stay_constants_with_their_names():
    graph = check(Constants(), (3,))
    scale = only(graph, "aten::mul").args["other"]
    codes = only(graph, "quantized::add").args["qb"]
    assert isinstance(scale, TensorConstant)
    assert isinstance(codes, QuantizedConstant)
    assert (scale.name, codes.name) == ("layer_scale_0", "codes")
    assert scale.array.tolist() == [0.5, 2.0, 1.0]


class Functional(nn.Module):
    """Packs its weight in forward."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        self.weight = torch.quantize_per_tensor(weight, 0.03, 0, torch.qint8)

    def forward(self, x):
        packed = torch.ops.quantized.conv2d_prepack(self.weight, None, [1, 1], [1, 1], [1, 1], 1)
        return torch.ops.quantized.conv2d(quantize(x), packed, 0.2, 30).dequantize()


def test_weights_packed_in_forward_are_folded():
    graph = check(Functional(), (1, 4, 6, 6))
    params = only(graph, "quantized::conv2d").args["packed_weight"]
    assert isinstance(params, ConvParams)
    assert params.bias is None


class Pair(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor


class Outputs(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x):
        low, high = x - 1, x + 1
        if self.kind == "dict":
            return {"low": low, "high": high}
        if self.kind == "nested":
            return low, [high, low]
        if self.kind == "named":
            return Pair(low, high)
        return x


def test_output_structure_is_the_models():
    shape = [("x", (2, 3))]
    low, high = (Value(node.outputs[0].name) for node in from_torch(Outputs("named"), shape).nodes)
    assert from_torch(Outputs("dict"), shape).output == {"low": low, "high": high}
    assert from_torch(Outputs("nested"), shape).output == (low, [high, low])
    assert from_torch(Outputs("named"), shape).output == (low, high)
    assert from_torch(Outputs("input"), shape).output == Value("x")


def test_no_containers_are_left_for_the_output():
    assert [n.name for n in from_torch(Outputs("nested"), [("x", (2, 3))]).nodes] == ["aten::sub", "aten::add"]


def test_scope_and_source_name_the_models_code():
    for model in (Shared(), torch.jit.script(Shared())):
        node = from_torch(model, [("x", (1, 4, 6, 6))], "fbgemm").nodes[1]
        assert node.scope in ("first.conv", "second.conv")
        file, line = node.source.split(":")
        assert file == "test_capture_graph.py"
        assert "self.conv(x)" in Path(__file__).read_text().splitlines()[int(line) - 1]


class ChannelLoop(nn.Module):
    def forward(self, x):
        parts = []
        for i in range(x.size(1)):
            parts.append(x[:, i : i + 1] * i)
        if x.dim() != 2:
            raise ValueError("two dimensions, please")
        return torch.cat(parts, 1)


def test_shapes_unroll_loops_and_fold_branches():
    graph = check(torch.jit.script(ChannelLoop()), (2, 3))
    assert {n.op for n in graph.walk()} == {
        "aten::slice.Tensor",
        "aten::mul.Scalar",
        "prim::ListConstruct",
        "aten::cat",
    }


def test_an_exception_that_is_certain_is_an_input_error():
    with pytest.raises(InvalidInputError, match=r"test_capture_graph.py:\d+.*two dimensions, please"):
        from_torch(torch.jit.script(ChannelLoop()), [("x", (2, 3, 4))])


class DataBranch(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0):
            y = quantize(x)
        else:
            y = quantize(x * 2)
        while bool(x.sum() < 100):
            x = x + 10
        return y.dequantize() + x


def test_branches_and_loops_on_data_stay():
    graph = check(torch.jit.script(DataBranch()), (4,))
    branch, loop = only(graph, "prim::If"), only(graph, "prim::Loop")
    assert len(branch.blocks) == 2
    assert [n.name for n in branch.blocks[1].nodes] == ["aten::mul", "aten::quantize_per_tensor"]
    assert len(loop.blocks) == 1
    assert len(loop.blocks[0].inputs) == 2


class SizeOfNonzero(nn.Module):
    def forward(self, x):
        return torch.zeros(x.nonzero().size(0) + 1)


def test_sizes_that_depend_on_data_are_not_folded():
    graph = check(torch.jit.script(SizeOfNonzero()), (4,))
    assert "aten::size" in [node.name for node in graph.nodes]


class Optional(nn.Module):
    def forward(self, x, mask: torch.Tensor | None = None):
        if mask is not None:
            x = x * mask
        return x


def test_inputs_with_a_default_may_be_left_out():
    script = torch.jit.script(Optional())
    assert from_torch(script, [("x", (2, 2))]).nodes == ()
    assert len(from_torch(script, [("x", (2, 2)), ("mask", (2, 2))]).nodes) == 1


class Relu(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x, y):
        if self.how == "input":
            return x.relu_() + y
        x = x * 2
        if self.how == "itself":
            torch.relu_(x)
            return x + y
        if self.how == "view":
            torch.relu_(x.view(-1))
            return x + y
        x[:, 0] = 0.0
        return x + y


@pytest.mark.parametrize("how", ["input", "itself"])
def test_in_place_ops_become_functional(how):
    for model in (Relu(how), torch.jit.script(Relu(how))):
        assert "aten::relu" in [node.op for node in check(model, (2, 3), (2, 3)).nodes]


@pytest.mark.parametrize("how", ["view", "slice"])
def test_in_place_ops_through_another_name_are_refused(how):
    for model in (Relu(how), torch.jit.script(Relu(how))):
        with pytest.raises(UnsupportedOpError, match=r"test_capture_graph.py:\d+\) changes a value that is used later"):
            from_torch(model, [("x", (2, 3)), ("y", (2, 3))])


class Counter(nn.Module):
    count: int

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.count = 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        if self.training:
            self.count = self.count + 1
            self.seen.add_(1)
        if self.how == "tensor":
            self.seen.add_(1)
        return x + self.seen


def test_models_that_keep_state_are_refused():
    for model in (Counter("tensor"), torch.jit.script(Counter("tensor"))):
        with pytest.raises(
            UnsupportedOpError, match=r"changes its own tensors.*add_ \(test_capture_graph.py:\d+\).*self\.seen"
        ):
            from_torch(model, [("x", (2,))])


def test_state_kept_only_in_training_does_not_matter():
    graph = from_torch(torch.jit.script(Counter("no")).train(), [("x", (2,))])
    assert [node.name for node in graph.nodes] == ["aten::add"]


class Talkative(nn.Module):
    def forward(self, x):
        print("hello", x.size())
        warnings.warn("take care", stacklevel=1)
        return x + 1


def test_prints_and_warnings_are_said_at_import():
    with pytest.warns(UserWarning, match="is left out") as said:
        graph = from_torch(torch.jit.script(Talkative()), [("x", (2,))])
    assert [node.name for node in graph.nodes] == ["aten::add"]
    messages = [str(w.message) for w in said]
    assert any("print 'hello' (test_capture_graph.py" in m for m in messages)
    assert any("warning 'take care' (test_capture_graph.py" in m for m in messages)
