"""Models whose tensors are quantized per channel, with run-time parameters or for reference; embeddings as users get
them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx

import qtorch_relay as qr
from qtorch_relay.errors import InvalidInputError, QTorchRelayError, UnsupportedOpError
from tests.matrix.case import Apply

INDICES = torch.arange(20).reshape(4, 5)
BAG, OFFSETS = torch.arange(18), torch.tensor([0, 3, 3, 9])
ENDS = torch.tensor([0, 3, 3, 9, 18])
QCONFIGS = {
    "8bit": quantization.float_qparams_weight_only_qconfig,
    "4bit": quantization.float_qparams_weight_only_qconfig_4bit,
}


class Lookups(nn.Module):
    """An embedding, and bags with and without a last offset."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 12)
        self.bag = nn.EmbeddingBag(30, 12, mode="sum")
        self.ended = nn.EmbeddingBag(30, 16, mode="sum", include_last_offset=True)

    def forward(self, indices: Tensor, bag: Tensor, offsets: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.embedding(indices), self.bag(bag, offsets), self.ended(bag, ends)


INPUTS = (INDICES, BAG, OFFSETS, ENDS)


def _eager() -> nn.Module:
    model = Lookups().eval()
    for part in (model.embedding, model.bag, model.ended):
        part.qconfig = QCONFIGS["8bit"]
    quantization.prepare(model, inplace=True)
    quantization.convert(model, inplace=True)
    return model


def _fx(name: str) -> nn.Module:
    mapping = quantization.QConfigMapping()
    for kind in (nn.Embedding, nn.EmbeddingBag):
        mapping.set_object_type(kind, QCONFIGS[name])
    prepared = quantize_fx.prepare_fx(Lookups().eval(), mapping, INPUTS)
    converted: nn.Module = quantize_fx.convert_fx(prepared)
    return converted


MODELS: dict[str, Callable[[], Any]] = {
    "eager": _eager,
    "eager-traced": lambda: torch.jit.trace(_eager(), INPUTS),
    "eager-scripted": lambda: torch.jit.script(_eager()),
    "fx-8bit": lambda: _fx("8bit"),
    "fx-4bit": lambda: _fx("4bit"),
}


@pytest.mark.parametrize("name", MODELS)
def test_embeddings_as_pytorch_quantizes_them(name: str) -> None:
    model = MODELS[name]()
    compiled = qr.compile(model, list(INPUTS))
    for ours, expected in zip(compiled(*INPUTS), model(*INPUTS), strict=True):
        assert torch.equal(ours, expected)


def test_an_index_out_of_range_is_an_error_of_the_input_and_the_model_goes_on(tmp_path: Any) -> None:
    model = _fx("8bit")
    qr.compile(model, list(INPUTS)).save(tmp_path / "model.qtr")
    loaded = qr.load(tmp_path / "model.qtr")
    with pytest.raises(InvalidInputError, match="index 30 is out of range; accepted are 0 to 29"):
        loaded(torch.full((4, 5), 30), *INPUTS[1:])
    with pytest.raises(InvalidInputError, match="offsets of an embedding bag"):
        loaded(INDICES, BAG, torch.tensor([0, 3, 2, 9]), ENDS)
    assert torch.equal(loaded(*INPUTS)[0], model(*INPUTS)[0])


def test_pytorchs_eager_4_bit_embedding_calls_the_8_bit_kernel_and_is_refused() -> None:
    """An error of PyTorch: Embedding.from_float forgets the dtype, and the rows are read at the wrong width."""
    model = nn.Sequential(nn.Embedding(30, 12)).eval()
    model[0].qconfig = QCONFIGS["4bit"]
    quantization.prepare(model, inplace=True)
    quantization.convert(model, inplace=True)
    assert model(INDICES).shape == (4, 5, 2)
    with pytest.raises(UnsupportedOpError, match="codes of 4 bits"):
        qr.compile(model, [INDICES])


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean((2, 3))
        result: Tensor = self.linear(x)
        return result


@pytest.mark.filterwarnings("ignore:nothing in this model is int8")
def test_a_reference_model_gives_pytorchs_floats() -> None:
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    prepared = quantize_fx.prepare_fx(_Small().eval(), quantization.get_default_qconfig_mapping("fbgemm"), (x,))
    prepared(x)
    model = quantize_fx.convert_to_reference_fx(prepared)
    ours, expected = qr.compile(model, [x], engine="fbgemm")(x), model(x)
    # float convolutions differ by rounding; that moves no code here
    assert torch.equal(ours, expected)


SCALES, POINTS, POINT = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int64), torch.tensor(3)


def _by_channel(x: Tensor) -> Tensor:
    return torch.quantize_per_channel(x, SCALES, POINTS, 0, torch.qint8)


def _at_run_time(x: Tensor, scale: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x, scale, POINT, torch.quint8)


REFUSED: dict[str, tuple[Callable[..., Any], list[Any], str]] = {
    "reshaped": (lambda x: _by_channel(x).reshape(12), [("x", (3, 4))], "quantized per channel along axis 0"),
    "returned": (
        _at_run_time,
        [("x", (3, 4)), ("s", ())],
        "whose scale and zero point are run-time values",
    ),
    "added": (
        lambda x, s: torch.ops.quantized.add(_at_run_time(x, s), _at_run_time(x, s), 0.1, 3),
        [("x", (3, 4)), ("s", ())],
        "found a quantized tensor of uint8 whose scale and zero point are run-time values",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ops_for_one_constant_scale_refuse_others_with_a_clear_sentence(name: str) -> None:
    function, infos, message = REFUSED[name]
    with pytest.raises(QTorchRelayError, match=message):
        qr.compile(Apply(function).eval(), infos)
