"""What a captured graph holds: constants, packed params, output structure, and where each node came from."""

# No `from __future__ import annotations`: torch.jit.script cannot read annotations that are strings.
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.ao.nn.quantized as nnq
from torch import nn

from qtorch_relay.capture.graph import (
    ConvParams,
    EmbeddingParams,
    LinearFp16Params,
    LinearParams,
    QuantizedConstant,
    TensorConstant,
    Value,
)
from qtorch_relay.capture.torchscript import from_torch
from qtorch_relay.qparams import PerChannel
from tests.capture.captures import check, only, quantize

pytestmark = [
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning"),
    pytest.mark.usefixtures("fbgemm"),
]


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


def test_dynamic_linear_of_float16_weights_unpacks():
    params = only(check(Dynamic(torch.float16), (2, 8)), "quantized::linear_dynamic_fp16").args["W_prepack"]
    assert isinstance(params, LinearFp16Params)
    assert params.weight.dtype == np.float16
    assert params.weight.shape == (3, 8)


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nnq.Embedding(10, 4)

    def forward(self, x):
        return self.embed(x)


def test_embeddings_unpack_to_the_rows_that_kernels_read():
    graph = from_torch(Embed(), [("x", ((5,), "int64"))], "fbgemm")
    params = only(graph, "quantized::embedding_byte").args["weight"]
    assert isinstance(params, EmbeddingParams)
    assert params.rows.shape == (10, 4 + 8)  # codes, then scale and bias in float32


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
