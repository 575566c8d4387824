"""Whole language models, dynamically quantized as users do it: a transformer encoder, an LSTM and a GRU model.

The int8 layers are equal to the last bit for equal inputs, and so is the float between them but for two things: MKL's
tanh, whose last bit differs in 0.06 % of values, and products of fewer than 4 rows or 12 columns (tir/matmul.py). A
float that differs in its last bit can only move a dynamic code where it lies within 1e-5 of a step from a tie; with
these seeds none moves. A code that moves would show as 1e-4 of the scale and more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import qtorch_relay as qr
from qtorch_relay import target as targets
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.errors import UnsupportedOpError
from tests.frontend.mkl import in_mkls_order

VNNI = "x86-avx512vnni"


@pytest.fixture(autouse=True)
def _one_thread_and_no_fast_path() -> Iterator[None]:
    """PyTorch's own fast path of nn.TransformerEncoderLayer reads float weights, and fails on quantized layers."""
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(fast)
    torch.set_num_threads(threads)


def steps_between(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Returns the greatest difference in float32 steps at the scale of the reference."""
    scale = np.spacing(np.float32(theirs.abs().max()))
    return float((ours - theirs).abs().max() / scale)


def compiled_and_expected(
    model: nn.Module, x: torch.Tensor, engine: str, dtype: torch.dtype, kinds: set[type[nn.Module]]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Returns our outputs and PyTorch's for the dynamically quantized model, flat."""
    with quantized_engine(engine), torch.no_grad():
        quantized = torch.ao.quantization.quantize_dynamic(model.eval(), kinds, dtype=dtype)
        expected = quantized(x)
    compiled = qr.compile(quantized, [("x", x)], engine=engine)
    return _flat(compiled(x)), _flat(expected)


def _flat(output: object) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    assert isinstance(output, list | tuple)
    return [tensor for item in output for tensor in _flat(item)]


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and the scores of the next word."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], hidden: int = 64) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.embedding = nn.Embedding(50, 24)
        self.rnn = kind(24, hidden, num_layers=2, batch_first=True)
        self.scores = nn.Linear(hidden, 50)

    def forward(self, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, last = self.rnn(self.embedding(words))
        return self.scores(states), last[0]


RECURRENT = {nn.LSTM, nn.GRU, nn.Linear}


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_language_model(kind: type[nn.LSTM] | type[nn.GRU], engine: str) -> None:
    words = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(1))
    ours, theirs = compiled_and_expected(LanguageModel(kind), words, engine, torch.qint8, RECURRENT)
    assert len(ours) == len(theirs) == 2
    assert max(map(steps_between, ours, theirs)) <= 2


@pytest.mark.filterwarnings("ignore::qtorch_relay.errors.FloatModelWarning")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_language_model_with_float16_weights(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    words = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(2))
    ours, theirs = compiled_and_expected(LanguageModel(kind), words, "fbgemm", torch.float16, RECURRENT)
    assert max(map(steps_between, ours, theirs)) <= 2


def test_hundreds_of_steps_are_one_loop() -> None:
    words = torch.randint(0, 50, (1, 300), generator=torch.Generator().manual_seed(3))
    ours, theirs = compiled_and_expected(LanguageModel(nn.LSTM, 32), words, "fbgemm", torch.qint8, RECURRENT)
    assert max(map(steps_between, ours, theirs)) <= 2


class StaticLstm(nn.Module):
    """An LSTM of torch.ao.nn.quantizable, its gates and states quantized with observed parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.quantize, self.dequantize = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.lstm = nn.LSTM(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(self.quantize(x))
        return self.dequantize(output)


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_static_lstm_has_the_same_codes(engine: str) -> None:
    x = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(8))
    with quantized_engine(engine), torch.no_grad():
        model = StaticLstm().eval()
        model.qconfig = torch.ao.quantization.get_default_qconfig(engine)
        observed = torch.ao.quantization.prepare(model)
        observed(x)
        quantized = torch.ao.quantization.convert(observed)
        theirs = quantized(x)
    ours = qr.compile(quantized, [("x", x)], engine=engine)(x)
    assert int((ours != theirs).sum()) == 0


def encoder(layers: int) -> nn.Module:
    torch.manual_seed(5)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(256, 4, 256, batch_first=True), layers).eval()


def test_transformer_encoder() -> None:
    x = torch.randn(1, 7, 256, generator=torch.Generator().manual_seed(4))
    ours, theirs = compiled_and_expected(encoder(4), x, "fbgemm", torch.qint8, {nn.Linear})
    # scores of 7 columns: MKL adds those in an order of its own, in each of four layers
    assert max(map(steps_between, ours, theirs)) <= 4


@in_mkls_order
@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_transformer_encoder_is_pytorchs_to_the_last_bit(engine: str) -> None:
    x = torch.randn(2, 16, 256, generator=torch.Generator().manual_seed(4))
    ours, theirs = compiled_and_expected(encoder(4), x, engine, torch.qint8, {nn.Linear})
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.skipif(targets.missing_on_host(targets.resolve(VNNI)) is not None, reason=f"runs code for {VNNI}")
def test_transformer_encoder_takes_the_kernels_and_gives_the_same() -> None:
    x = torch.randn(1, 7, 256, generator=torch.Generator().manual_seed(4))
    with quantized_engine("fbgemm"), torch.no_grad():
        quantized = torch.ao.quantization.quantize_dynamic(encoder(2), {nn.Linear}, dtype=torch.qint8)
    with_kernels, portable = (
        qr.compile(quantized, [("x", x)], target=VNNI, engine="fbgemm", kernels=kernels) for kernels in (True, False)
    )
    # the two of each feed-forward network: PyTorch leaves those of the attention in float32
    layers = {name.split("_x64")[0].split("_u8")[0]: count for name, count in with_kernels.report["kernels"].items()}
    assert layers == {"choose_qparams_f32": 4, "quantize_dynamic_f32": 4, "dense_dynamic": 4}
    assert torch.equal(with_kernels(x), portable(x))


@pytest.mark.parametrize("engine", ["fbgemm", "onednn", "qnnpack"])
def test_dynamic_layers_of_any_batch_share_one_range(engine: str) -> None:
    """The zero point and the scale are those of all samples, though kernels compute one after the other."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 5, bias=False)).eval()
    with quantized_engine(engine), torch.no_grad():
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        compiled = qr.compile(quantized, [("x", ("n", 3, 40))], engine=engine)
        for batch in (1, 2, 5):
            x = torch.randn(batch, 3, 40) * torch.arange(1, batch + 1).reshape(-1, 1, 1)
            assert torch.equal(compiled(x), quantized(x))


class OfLengths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])[0]


def test_lengths_known_only_at_run_time_are_refused() -> None:
    x, lengths = torch.randn(4, 2, 8), torch.tensor([4, 2])
    with quantized_engine("fbgemm"):
        model = torch.ao.quantization.quantize_dynamic(OfLengths().eval(), {nn.LSTM}, dtype=torch.qint8)
        with pytest.raises(UnsupportedOpError, match="lengths that are known only at run time, and decides shapes"):
            qr.from_pytorch(model, [("x", x), ("lengths", lengths)], "fbgemm")


@pytest.mark.filterwarnings("ignore:Currently, qnnpack incorrectly ignores reduce_range")
def test_nan_is_computed_on_where_pytorchs_qnnpack_raises() -> None:
    with quantized_engine("qnnpack"), torch.no_grad():
        model = nn.Sequential(nn.Linear(4, 3)).eval()
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        compiled = qr.compile(quantized, [("x", (2, 4))], engine="qnnpack")
        for bad in (float("nan"), float("inf"), -float("inf")):
            x = torch.randn(2, 4)
            x[0, 1] = bad
            with pytest.raises(RuntimeError, match=r"min should be less|requantization scale must be finite"):
                quantized(x)
            assert compiled(x).shape == (2, 3)


def test_transformer_is_imported_whether_pytorchs_fast_path_is_on_or_off() -> None:
    """Its check fails on quantized layers in PyTorch itself, run, traced or scripted there."""
    torch.backends.mha.set_fastpath_enabled(True)
    with quantized_engine("fbgemm"), torch.no_grad():
        quantized = torch.ao.quantization.quantize_dynamic(encoder(4), {nn.Linear}, dtype=torch.qint8)
        x = torch.randn(1, 7, 256, generator=torch.Generator().manual_seed(4))
        with pytest.raises(AttributeError, match="has no attribute 'device'"):
            quantized(x)
        with pytest.raises(RuntimeError, match="method cannot be used as a value"):
            torch.jit.script(quantized)
        ours = qr.compile(quantized, [("x", x)], engine="fbgemm")(x)
        assert torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        assert steps_between(ours, quantized(x)) <= 4
