"""What Relay's importer of quantized PyTorch models did wrong, one test a trap: here it is PyTorch's, code by code.

TVM 0.18, python/tvm/relay/frontend/qnn_torch.py and pytorch.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from tests.frontend.models import UNOPTIMIZED, Conv, quantize, weight

pytestmark = [
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ops = torch.ops.quantized
# Whole vectors of 64 codes: PyTorch computes the rest of a tensor with other instructions.
SHAPE = (2, 4, 8, 8)


def example(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def assert_equal_to_pytorch(
    model: Any, x: torch.Tensor, engine: str = "fbgemm", target: Any = UNOPTIMIZED, given: Any = None
) -> qr.CompiledModel:
    """Compiles given (the model, if left out) and compares codes, parameters and floats to the bit; returns it."""
    with quantized_engine(engine), torch.no_grad():
        expected = model(x)
        compiled = qr.compile(model if given is None else given, [("x", tuple(x.shape))], target, engine)
        found = compiled(x)
    expected, found = (list(v) if isinstance(v, tuple) else [v] for v in (expected, found))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        if theirs.is_quantized:
            assert (ours.q_scale(), ours.q_zero_point()) == (theirs.q_scale(), theirs.q_zero_point())
            ours, theirs = ours.int_repr(), theirs.int_repr()
        assert torch.equal(ours, theirs), f"{(ours != theirs).sum().item()} of {ours.numel()} differ"
    return compiled


# Without kernels a warning says so; these tests are about codes.
pytestmark.append(pytest.mark.filterwarnings("ignore::qtorch_relay.errors.PortablePathWarning"))


class SecondInputs(nn.Module):
    """Parameters that come through the second operand of a producer, through a list and through a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(4, 4, 3, padding=1)

    def forward(self, x):
        a, b = quantize(x, 0.05, 10), quantize(x * 0.5, 0.02, 200)
        c = torch.cat([ops.add(a, b, 0.08, 120), ops.mul(b, a, 0.08, 120)], 1)
        pair = (a, self.conv(b))
        d = ops.cat([pair[1], pair[0]], 1, 0.07, 90)
        return c, d, self.conv(pair[1])


def test_only_the_first_input_of_a_producer_was_followed() -> None:
    """Trap: the search for parameters followed only the first input of each producer."""
    assert_equal_to_pytorch(SecondInputs(), example())


class ChangesParameters(nn.Module):
    """Ops whose output has other parameters than their input, each read by an op that needs them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(4, 4, 1)

    def forward(self, x):
        q = quantize(x)
        changed = (torch.sigmoid(q), torch.tanh(q), nn.functional.hardsigmoid(q))
        return tuple(self.conv(y) for y in changed)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_the_search_climbed_through_ops_that_change_the_parameters(engine: str) -> None:
    """Trap: hardsigmoid, tanh, sigmoid and others have an output scale of their own; the input's was taken."""
    with quantized_engine(engine):
        model = ChangesParameters()
    assert_equal_to_pytorch(model, example(), engine)


class Blocks(nn.Module):
    """Quantized ops inside branches and a loop, in a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(4, 4, 3, padding=1)

    def forward(self, x):
        q = torch.quantize_per_tensor(x, 0.047, 61, torch.quint8)
        if q.size(1) == 4:
            q = self.conv(q)
        for i in range(2):
            if i == 1:
                q = torch.ops.quantized.add(q, self.conv(q), 0.09, 100)
            else:
                q = torch.ops.quantized.mul(q, q, 0.3, 20)
        return q


class Conv2dCall(nn.Module):
    """A convolution that torch.jit.script can read."""

    def __init__(self) -> None:
        super().__init__()
        self._packed_params = ops.conv2d_prepack(
            weight((4, 4, 3, 3), 3, per_channel=True), torch.randn(4), [1, 1], [1, 1], [1, 1], 1
        )

    def forward(self, x):
        return torch.ops.quantized.conv2d(x, self._packed_params, 0.061, 100)


def test_blocks_of_scripted_models_were_not_annotated() -> None:
    """Trap: only top-level nodes were annotated, not those in the blocks of If and Loop."""
    model = Blocks()
    model.conv = Conv2dCall()
    assert_equal_to_pytorch(model, example(), given=torch.jit.script(model.eval()))


class Wrapped(nn.Module):
    """A convolution under a name of its own, and packed parameters that belong to no known module."""

    def __init__(self) -> None:
        super().__init__()
        self.my_own_layer = Conv2dCall()
        self.weights_of_mine = ops.conv2d_prepack(
            weight((4, 4, 1, 1), 5, per_channel=False), None, [1, 1], [0, 0], [1, 1], 1
        )

    def forward(self, x):
        return torch.ops.quantized.conv2d_relu(self.my_own_layer(quantize(x)), self.weights_of_mine, 0.05, 0)


@pytest.mark.parametrize("frozen", [False, True])
def test_packed_params_were_found_by_attribute_name(frozen: bool) -> None:
    """Trap: frozen graphs, renamed modules and functional packed params failed: weights were searched by name."""
    model = Wrapped().eval()
    traced = torch.jit.trace(model, example())
    assert_equal_to_pytorch(model, example(), given=torch.jit.freeze(traced) if frozen else traced)


class SignedAndPlain(nn.Module):
    """quint8 and qint8 activations, and a uint8 tensor that is not quantized."""

    def forward(self, x):
        signed = torch.quantize_per_tensor(x, 0.05, -7, torch.qint8)
        plain = torch.clamp(x * 10, 0, 200).to(torch.uint8)
        return torch.relu(signed), plain + 3, torch.relu(quantize(x))


def test_loaded_models_lost_which_tensors_are_quantized(tmp_path: Path) -> None:
    """Trap: a saved model drops the dtypes of its values, so every uint8 tensor counted as quantized, no int8 one."""
    model = SignedAndPlain()
    torch.jit.save(torch.jit.trace(model, example()), tmp_path / "model.pt")
    assert_equal_to_pytorch(model, example(), given=str(tmp_path / "model.pt"))


def test_quantize_always_gave_uint8() -> None:
    """Trap: quantize_per_tensor gave uint8 whatever its dtype argument said."""

    class Quantize(nn.Module):
        def forward(self, x):
            return tuple(torch.quantize_per_tensor(x, 0.01, 5, dtype) for dtype in (torch.quint8, torch.qint8))

    assert_equal_to_pytorch(Quantize(), example())


def test_outputs_were_clipped_to_0_to_255() -> None:
    """Trap: the clip of an op's output was that of uint8; int8 outputs reach -128 and 127."""

    class Saturates(nn.Module):
        def forward(self, x):
            q = torch.quantize_per_tensor(x, 0.02, -3, torch.qint8)
            return ops.add(q, q, 0.01, 2), ops.mul(q, q, 0.001, 1)

    compiled = assert_equal_to_pytorch(Saturates(), example())
    codes = compiled(example().numpy())[0]
    assert (codes.min(), codes.max()) == (-128, 127)


@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_per_channel_zero_points_had_to_be_0(engine: str) -> None:
    """Trap: weights quantized per channel with zero points were an assertion error."""
    values = torch.randn(5, 8)
    zero_points = torch.tensor([3, -9, 0, 100, -128])
    w = torch.quantize_per_channel(values, torch.rand(5) * 0.01 + 0.01, zero_points, 0, torch.qint8)

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = ops.linear_prepack(w, torch.randn(5))

        def forward(self, x):
            return ops.linear(quantize(x), self.packed, 0.2, 99)

    with quantized_engine(engine):
        model = Linear()
    assert_equal_to_pytorch(model, example((6, 8)), engine)


class ConvOf(nn.Module):
    """A convolution of one of the kinds that were not unpacked."""

    def __init__(self, name: str, prepack: str, weights: torch.Tensor, *arguments: Any) -> None:
        super().__init__()
        self.op = getattr(ops, name)
        self.packed = getattr(ops, prepack)(weights, torch.randn(4), *arguments)

    def forward(self, x):
        return self.op(quantize(x), self.packed, 0.1, 70)


def other_convolution(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "conv1d":
        w = weight((4, 4, 3), 3, per_channel=True)
        return ConvOf("conv1d", "conv1d_prepack", w, [1], [1], [1], 1), example((2, 4, 9))
    if name == "conv3d":
        w = weight((4, 4, 3, 3, 3), 3, per_channel=True)
        return ConvOf("conv3d", "conv3d_prepack", w, [1] * 3, [1] * 3, [1] * 3, 1), example((1, 4, 4, 5, 6))
    dims = int(name[-2])
    w = weight((4, 4, *[3] * dims), 3, per_channel=False)
    arguments = ([2] * dims, [1] * dims, [1] * dims, [1] * dims, 1)
    return ConvOf(name, f"{name}_prepack", w, *arguments), example((1, 4, *[5] * dims))


@pytest.mark.parametrize("name", ["conv1d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"])
def test_only_conv2d_was_unpacked(name: str) -> None:
    """Trap: packed params of other convolutions failed to unpack."""
    with quantized_engine("fbgemm"):
        model, x = other_convolution(name)
    assert_equal_to_pytorch(model, x)


@pytest.mark.parametrize("shape", [(1, 19, 32), (2, 3, 5, 32), (1, 32)])
def test_linear_took_two_dimensions(shape: tuple[int, ...]) -> None:
    """Trap: a static linear layer on anything but a matrix was a type error (tvm issue 15155)."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = ops.linear_prepack(weight((7, 32), 3, per_channel=True), torch.randn(7))

        def forward(self, x):
            return ops.linear_relu(quantize(x), self.packed, 0.2, 0)

    with quantized_engine("fbgemm"):
        model = Linear()
    assert_equal_to_pytorch(model, example(shape))


class ScalesByName(nn.Module):
    """Parameters of the user's whose names end as those that FX makes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.layer_scale = nn.Parameter(torch.full((4, 1, 1), 0.6))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.my_zero_point = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        x = self.conv(x) * self.layer_scale
        return self.conv(x) * self.logit_scale + self.my_zero_point


def quantized_by_fx(model: nn.Module, x: torch.Tensor, engine: str = "fbgemm") -> nn.Module:
    prepared = quantize_fx.prepare_fx(model.eval(), quantization.get_default_qconfig_mapping(engine), (x,))
    prepared(x)
    return quantize_fx.convert_fx(prepared)


def test_parameters_of_the_users_were_taken_for_scales() -> None:
    """Trap: FX scales were found by name, so a layer_scale or logit_scale of the model's became one."""
    with quantized_engine("fbgemm"):
        model = quantized_by_fx(ScalesByName(), example())
    assert_equal_to_pytorch(model, example())


@pytest.mark.parametrize("target", ["host", UNOPTIMIZED])
def test_a_module_called_twice_shared_one_bias(target: Any) -> None:
    """Trap: a module called with two input scales had one quantized bias, of the wrong scale for one of the calls."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv(4, 4, 3, padding=1)

        def forward(self, x):
            first = self.conv(quantize(x, 0.05, 10))
            return first, self.conv(first), self.conv(quantize(x, 0.5, 200))

    assert_equal_to_pytorch(Twice(), example(), target=target)


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("engine", ["fbgemm", "qnnpack"])
def test_dynamic_layers_ignored_reduce_range_and_a_range_of_0(engine: str, reduce_range: bool) -> None:
    """Trap: dynamic quantization took qmax = 127 always, and divided by a scale of 0 where the input is all zeros."""

    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed = ops.linear_prepack(weight((5, 32), 3, per_channel=False), torch.randn(5))

        def forward(self, x):
            return ops.linear_dynamic(x, self.packed, reduce_range)

    with quantized_engine(engine):
        model = Dynamic()
    compiled = assert_equal_to_pytorch(model, example((4, 32)), engine)
    with quantized_engine(engine):
        zeros = torch.zeros(4, 32)
        assert torch.equal(compiled(zeros), model(zeros))


def test_add_and_cat_rounded_twice() -> None:
    """Trap: add and cat requantized each operand before they combined them, which is another rounding."""

    class Combine(nn.Module):
        def forward(self, x):
            a, b = quantize(x, 0.031, 10), quantize(x.flip(0), 0.047, 200)
            return ops.add(a, b, 0.05, 99), ops.add_relu(a, b, 0.03, 5), ops.cat([a, b], 1, 0.043, 77)

    assert_equal_to_pytorch(Combine(), example((64, 64)))


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_the_bias_was_rounded_to_int32(engine: str) -> None:
    """Trap: PyTorch keeps the bias in float32 (QNNPACK rounds it, its own way); Relay rounded it to codes."""

    class LargeSteps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            values = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
            w = torch.quantize_per_tensor(values, 0.5, 0, torch.qint8)
            self.packed = ops.linear_prepack(w, torch.linspace(-0.5, 0.5, 16))

        def forward(self, x):
            return ops.linear(quantize(x, 0.5, 100), self.packed, 0.01, 128)

    with quantized_engine(engine):
        model = LargeSteps()
    assert_equal_to_pytorch(model, example((16, 8)) * 0.3, engine)


def test_weights_were_kept_in_float32(tmp_path: Path) -> None:
    """Trap: weights were float32 parameters that the program quantized; a bundle was four times too large."""
    with quantized_engine("fbgemm"):
        model = Conv(64, 64, 3, padding=1)
    mod, params = qr.from_pytorch(_AfterQuantize(model), [("x", (1, 64, 4, 4))], "fbgemm")
    weights = {name: value.numpy() for name, value in params.items()}
    assert [str(array.dtype) for array in weights.values()].count("int8") == 1
    assert max(array.nbytes for array in weights.values()) == 64 * 64 * 9
    compiled = qr.compile((mod, params), target="host")
    compiled.save(tmp_path / "conv.qtr")
    stored = sum(array.nbytes for array in qr.load(tmp_path / "conv.qtr").weights.values())
    assert stored < 1.2 * 64 * 64 * 9


class _AfterQuantize(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(quantize(x))


@pytest.mark.parametrize(("dilation", "groups"), [(1, 1), (2, 1), (1, 4), (1, 16), (2, 16)])
def test_dilated_and_grouped_convolutions_were_slow(dilation: int, groups: int) -> None:
    """Trap: int8 convolutions with dilation or groups fell back to slow code; here the int8 kernels take them."""
    if qr.target.resolve("host").kernels is None:
        pytest.skip("this host has no int8 kernels")
    with quantized_engine("fbgemm"):
        model = _AfterQuantize(Conv(16, 16, 3, padding=dilation, dilation=dilation, groups=groups))
    compiled = assert_equal_to_pytorch(model, example((1, 16, 8, 8)), target="host")
    kernels = compiled.report["kernels"]
    assert sum(count for name, count in kernels.items() if name.startswith(("conv2d", "depthwise"))) == 1
    assert not [message for message in compiled.report["messages"] if "generic" in message], np.array(kernels)
