"""Every way of PyTorch to quantize a model x every engine: 0 differing codes, from the model to a loaded bundle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.ao import quantization as q

import qtorch_relay as qr
from qtorch_relay.capture.engine import ENGINES, quantized_engine
from qtorch_relay.errors import InvalidInputError, UnsupportedOpError
from tests.frontend import flows
from tests.frontend.models import UNOPTIMIZED

# PyTorch's observers and quantization flows announce their own end; tracing does too.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class Row(NamedTuple):
    """A flow, the engine, and the model it is for."""

    name: str
    engine: str
    model: type[nn.Module]
    flow: Any


# Qconfigs with int8 activations.
SYMMETRIC = ("default_symmetric_qnnpack", "default_per_channel_symmetric_qnnpack")


def rows() -> Iterator[Row]:
    """Yields the table."""
    for engine in ENGINES:
        post, qat = q.get_default_qconfig(engine), q.get_default_qat_qconfig(engine)
        for kind in (flows.ConvNet, flows.Linears):
            yield Row("eager", engine, kind, flows.eager(post))
            yield Row("eager-qat", engine, kind, flows.eager(qat, qat=True))
        yield Row("eager-unfused", engine, flows.ConvNet, flows.eager(post, fuse=False))
        mapping, qat_mapping = q.get_default_qconfig_mapping(engine), q.get_default_qat_qconfig_mapping(engine)
        for kind in (flows.ConvNetFx, flows.Linears, flows.FixedParameters, flows.BatchNorms, flows.Activations):
            yield Row("fx", engine, kind, flows.fx(mapping))
        for kind in (flows.ConvNetFx, flows.Linears):
            yield Row("fx-qat", engine, kind, flows.fx(qat_mapping, qat=True))
        if engine != "onednn":  # PyTorch: "ONEDNN only supports symmetric quantization of weight"
            yield Row("fx-asymmetric-weights", engine, flows.Linears, flows.fx(flows.asymmetric_weights()))
        for kind in (flows.ConvNet, flows.Linears):
            yield Row("qat-not-converted", engine, kind, flows.fake_quantized(qat))
        yield Row("fx-reference", engine, flows.ConvNetFx, flows.fx(mapping, reference=True))
        yield Row("fx-reference", engine, flows.Linears, flows.fx(mapping, reference=True))
        yield Row("fx-reuse-input", engine, flows.Activations, flows.fx(mapping.set_object_type(
            nn.MaxPool2d, q.default_reuse_input_qconfig)))  # fmt: skip
        for kind in (flows.Signals, flows.Volumes) if engine != "qnnpack" else (flows.Signals,):
            yield Row("eager", engine, kind, flows.eager(post))
            yield Row("fx", engine, kind, flows.fx(mapping))
        yield Row("fx-per-tensor", engine, flows.Transposed, flows.fx(flows.per_tensor_weights()))
        yield Row("dynamic", engine, flows.Linears, flows.dynamic(torch.qint8))
        yield Row("dynamic-per-channel", engine, flows.Linears, flows.dynamic(q.per_channel_dynamic_qconfig))
        yield Row("fx-dynamic", engine, flows.Linears, flows.fx(q.default_dynamic_qconfig))
    for name in SYMMETRIC:
        # The only layer with int8 activations that this build of PyTorch runs; the others are refused below.
        qat = name.replace("qnnpack", "qnnpack_qat")
        yield Row(name, "onednn", flows.Linears, flows.eager(getattr(q.qconfig, f"{name}_qconfig")))
        yield Row(qat, "onednn", flows.Linears, flows.eager(getattr(q.qconfig, f"{qat}_qconfig"), qat=True))
    for engine in ("fbgemm", "qnnpack"):
        yield Row("dynamic", engine, flows.Recurrent, flows.recurrent(torch.qint8))
    yield Row("dynamic-float16", "fbgemm", flows.Recurrent, flows.recurrent(torch.float16))
    yield Row("dynamic-float16", "fbgemm", flows.Linears, flows.dynamic(torch.float16))
    yield Row("fx-float16-dynamic", "fbgemm", flows.Linears, flows.fx(q.float16_dynamic_qconfig))
    yield Row("embedding-8bit", "fbgemm", flows.Embeddings, flows.dynamic(q.float_qparams_weight_only_qconfig))
    yield Row("embedding-4bit", "fbgemm", flows.Bags, flows.dynamic(q.float_qparams_weight_only_qconfig_4bit))
    onednn = flows.symmetric_onednn()
    for kind in (flows.Residual, flows.LinearThen):
        yield Row("fx-onednn-backend", "onednn", kind, flows.fx(q.get_default_qconfig("onednn"), backend=onednn))


ROWS = list(rows())


def same(found: Any, expected: Any) -> None:
    """Checks that all tensors are equal to the bit."""
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        if theirs.is_quantized:
            ours, theirs = ours.int_repr(), theirs.int_repr()
        assert torch.equal(ours, theirs), f"{(ours != theirs).sum().item()} of {ours.numel()} differ"


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.name}-{row.engine}-{row.model.__name__}" for row in ROWS])
def test_every_flow_gives_pytorchs_codes(row: Row) -> None:
    with quantized_engine(row.engine), torch.no_grad():
        x = flows.example_for(row.model, 1)
        model = row.flow(flows.float_model(row.model), x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = qr.compile(model, [x], UNOPTIMIZED, row.engine)
        for seed in (1, 2):
            x = flows.example_for(row.model, seed)
            same(compiled(x), model(x))


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize(("engine", "kind"), [
    ("fbgemm", flows.ConvNet), ("fbgemm", flows.Linears), ("qnnpack", flows.ConvNet), ("qnnpack", flows.Linears),
    ("onednn", flows.ConvNet), ("x86", flows.Linears),
])  # fmt: skip
def test_int8_activations_are_refused_where_pytorch_refuses_them(name: str, engine: str, kind: type[nn.Module]) -> None:
    with quantized_engine(engine), torch.no_grad():
        x = flows.example_for(kind, 1)
        model = flows.eager(getattr(q.qconfig, f"{name}_qconfig"))(flows.float_model(kind), x)
        with pytest.raises(RuntimeError, match=r"(?i)QUInt8"):
            model(x)
        with pytest.raises(InvalidInputError, match=r"(?i)the model cannot be traced with input .*QUInt8"):
            qr.from_pytorch(model, [x], engine)


def test_a_4_bit_table_under_an_8_bit_lookup_is_refused() -> None:
    """nnq.Embedding.from_float forgets that the table has 4 bits: PyTorch reads rows of the wrong length."""
    x = flows.example_for(flows.Embeddings, 1)
    model = flows.dynamic(q.float_qparams_weight_only_qconfig_4bit)(flows.float_model(flows.Embeddings), x)
    with pytest.raises(UnsupportedOpError, match=r"quantized::embedding_byte .* has codes of 4 bits"):
        qr.from_pytorch(model, [x], "fbgemm")
