"""Models as users write and keep them: what they take and return, and the ways to hand them over."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import InvalidInputError
from tests.frontend.models import SCALE, UNOPTIMIZED, ZERO_POINT, Conv, quantize
from tests.frontend.nested_models import Optional, Pair, Scripted

# torch.jit.script says this of torch's own quantized modules; freezing and tracing are deprecated as a whole.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The TorchScript type system doesn't support:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

# Whole vectors of 64: PyTorch adds the codes of a rest without fused multiply-adds.
SHAPE = (2, 3, 8, 16)


def example(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def compiled(model: Any, infos: Any, tmp_path: Path | None = None) -> qr.CompiledModel:
    """Compiles a model for fbgemm; with tmp_path it is saved and loaded too."""
    found = qr.compile(model, infos, UNOPTIMIZED, "fbgemm", kernels=False)
    if tmp_path is None:
        return found
    found.save(tmp_path / "model.qtr")
    return qr.load(tmp_path / "model.qtr")


def assert_same(found: Any, expected: Any) -> None:
    """Checks structure, dtype, values to the bit, and of quantized tensors the parameters and memory layout too."""
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        if expected.is_quantized:
            assert (found.q_scale(), found.q_zero_point()) == (expected.q_scale(), expected.q_zero_point())
            assert found.stride() == expected.stride()
            found, expected = found.int_repr(), expected.int_repr()
        assert torch.equal(found, expected)
        return
    if expected is None:
        assert found is None
        return
    if hasattr(expected, "_fields"):
        assert found._fields == expected._fields
        assert type(found).__name__ == type(expected).__name__
    else:
        assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


# ---- quantized inputs and outputs


class QuantizedThrough(nn.Module):
    """Codes in, codes out; PyTorch's convolution gives channels-last memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.parametrize("form", ["example", "words"])
@pytest.mark.parametrize("script", [False, True])
def test_quantized_tensors_are_inputs_and_outputs(tmp_path: Path, form: str, script: bool) -> None:
    with quantized_engine("fbgemm"):
        model = QuantizedThrough()
        x = quantize(example())
        given = torch.jit.script(model) if script else model
        infos = [x] if form == "example" else [("x", (SHAPE, "quint8", SCALE, ZERO_POINT))]
        ours = compiled(given, infos, tmp_path)
        expected = model(x)
    assert_same(ours(x), expected)
    np.testing.assert_array_equal(ours(x.int_repr().numpy()), expected.int_repr().numpy())


@pytest.mark.parametrize("dtype", [torch.qint8, torch.qint32])
def test_quantized_inputs_of_other_dtypes(dtype: torch.dtype) -> None:
    x = torch.quantize_per_tensor(example(), 0.031, -7, dtype)

    class Dequantize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.dequantize()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qr.errors.FloatModelWarning)
        assert_same(compiled(Dequantize(), [x])(x), x.dequantize())


def test_a_quantized_input_must_have_the_parameters_compiled_for() -> None:
    with quantized_engine("fbgemm"):
        ours = compiled(QuantizedThrough(), [quantize(example())])
    with pytest.raises(InvalidInputError, match=r"has scale 0.5 and zero point 61; the model was compiled for"):
        ours(quantize(example(), 0.5))
    with pytest.raises(InvalidInputError, match=r"x is int8 .*; accepted is uint8"):
        ours(torch.quantize_per_tensor(example(), SCALE, ZERO_POINT, torch.qint8))
    with pytest.raises(InvalidInputError, match=r"x is float32 \[2, 3, 8, 16\]; accepted is uint8"):
        ours(example())


def test_a_quantized_tensor_is_refused_where_floats_are_taken() -> None:
    class Quantize(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return quantize(x)

    with pytest.raises(InvalidInputError, match="is a quantized tensor; accepted is float32, not quantized"):
        compiled(Quantize(), [("x", SHAPE)])(quantize(example()))


# ---- lists, tuples, dicts, named tuples


class Nested(nn.Module):
    """Takes a list, a tuple, a dict and an optional tensor, and returns them nested."""

    def forward(
        self,
        xs: list[torch.Tensor],
        pair: tuple[torch.Tensor, torch.Tensor],
        named: dict[str, torch.Tensor],
        extra: torch.Tensor | None = None,
    ):
        total = torch.ops.quantized.add(quantize_(xs[0]), quantize_(pair[1]), 0.1, 50)
        for x in xs:
            total = torch.ops.quantized.add(total, quantize_(x), 0.1, 50)
        if extra is not None:
            total = torch.ops.quantized.mul(total, quantize_(extra), 0.1, 50)
        total = torch.ops.quantized.add(total, quantize_(named["a"] + named["b.c"]), 0.1, 50)
        return Pair(total, total.dequantize()), {"first": [pair[0], total], "second": (total,)}


def quantize_(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x, 0.047, 61, torch.quint8)


def nested_values(seed: int) -> tuple[Any, ...]:
    a, b, c, d, e, f = (example(seed + i) for i in range(6))
    return [a, b], (c, d), {"a": e, "b.c": f}


class Plain(nn.Module):
    """The same without annotations, to be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Nested()

    def forward(self, xs, pair, named):
        return self.inner(xs, pair, named)[0]


def test_nested_inputs_of_a_traced_model(tmp_path: Path) -> None:
    model = Plain()
    infos = [("xs", [SHAPE, SHAPE]), ("pair", (example(), example())), ("named", {"a": SHAPE, "b.c": SHAPE})]
    ours = compiled(model, infos, tmp_path)
    values = nested_values(3)
    assert_same(ours(*values), model(*values))
    assert_same(ours(values[0], named=values[2], pair=values[1]), model(*values))
    assert [spec.name for spec in ours.inputs] == ["xs_0", "xs_1", "pair_0", "pair_1", "named_a", "named_b.c"]
    flat = ours.run_flat([leaf.numpy() for leaf in (*values[0], *values[1], *values[2].values())])
    np.testing.assert_array_equal(flat[0], model(*values)[0].int_repr().numpy())


def test_nested_inputs_are_checked() -> None:
    infos = [("xs", [SHAPE, SHAPE]), ("pair", (SHAPE, SHAPE)), ("named", {"a": SHAPE, "b.c": SHAPE})]
    ours = compiled(Plain(), infos)
    xs, pair, named = nested_values(0)
    with pytest.raises(InvalidInputError, match="input xs has 1 items; accepted is a list or tuple of 2"):
        ours(xs[:1], pair, named)
    with pytest.raises(InvalidInputError, match=r"input named is with the keys \['a'\]; accepted is a dict with"):
        ours(xs, pair, {"a": named["a"]})
    with pytest.raises(InvalidInputError, match="input pair is a Tensor; accepted is a list or tuple of 2"):
        ours(xs, pair[0], named)


@pytest.mark.parametrize("with_extra", [False, True])
def test_nested_inputs_of_a_scripted_model(tmp_path: Path, with_extra: bool) -> None:
    model = torch.jit.script(Scripted())
    infos = [("xs", [SHAPE, SHAPE]), ("pair", (SHAPE, SHAPE)), ("named", {"a": SHAPE, "b.c": SHAPE})]
    values = nested_values(5)
    if with_extra:
        infos.append(("extra", SHAPE))
        values = (*values, example(11))
    ours = compiled(model, infos, tmp_path)
    assert_same(ours(*values), model(*values))


def test_an_optional_input_can_be_left_out_in_the_middle() -> None:
    model = torch.jit.script(Optional())
    ours = compiled(model, [("x", SHAPE), ("mask", None), ("y", SHAPE)])
    x, y = example(1), example(2)
    assert_same(ours(x, None, y), model(x, None, y))
    with pytest.raises(InvalidInputError, match="input mask was left out when the model was compiled"):
        ours(x, x, y)


# ---- names, sharing, in-place ops, views


class Scales(nn.Module):
    """Attributes whose names look like quantization parameters and are not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((3, 1, 1), 0.7))
        self.logit_scale = nn.Parameter(torch.tensor(1.3))
        self.register_buffer("scale_0", torch.tensor(0.09))
        self.register_buffer("zero_point_0", torch.tensor(31))
        self.input_scale_0 = 0.05
        self.input_zero_point_0 = 17

    def forward(self, x):
        q = torch.quantize_per_tensor(x * self.layer_scale, self.input_scale_0, self.input_zero_point_0, torch.quint8)
        y = torch.quantize_per_tensor(q.dequantize() * self.logit_scale, self.scale_0, self.zero_point_0, torch.quint8)
        return torch.ops.quantized.add(q, y, 0.1, 50)


class Shared(nn.Module):
    """One module called twice, on inputs of different parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(3, 3, 3, padding=1)

    def forward(self, x):
        first = self.conv(quantize_(x))
        return self.conv(first), first


class InPlace(nn.Module):
    """In-place ops and views, of codes and of floats."""

    def forward(self, x):
        x = x + 1
        x.mul_(0.5).clamp_(-1.5, 2.0)
        q = quantize_(x)
        q = torch.relu_(q)
        view = q.view(q.size(0), -1, q.size(3)).transpose(1, 2)
        flat = view.contiguous().flatten(1)[:, 3:40:2]
        return flat.unsqueeze(1).squeeze(1).dequantize(), view.reshape(-1)


FORMS = ("module", "traced", "scripted", "frozen", "optimized", "saved")


def in_form(model: nn.Module, form: str, x: torch.Tensor, folder: Path) -> Any:
    if form == "module":
        return model
    if form == "scripted":
        return torch.jit.script(model)
    traced = torch.jit.trace(model, x)
    if form == "frozen":
        return torch.jit.freeze(traced.eval())
    if form == "optimized":
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))
    if form == "saved":
        torch.jit.save(traced, folder / "model.pt")
        return str(folder / "model.pt")
    return traced


@pytest.mark.parametrize("form", [form for form in FORMS if form != "scripted"])
@pytest.mark.parametrize("kind", [Scales, Shared, InPlace])
def test_forms_give_pytorchs_result(tmp_path: Path, kind: type[nn.Module], form: str) -> None:
    with quantized_engine("fbgemm"), torch.no_grad():
        model = kind().eval()
        x = example(4)
        expected = model(x.clone())
        ours = compiled(in_form(model, form, x, tmp_path), [("x", SHAPE)])
    assert_same(ours(x), expected)
