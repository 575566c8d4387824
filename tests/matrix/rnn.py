"""Rows of recurrent layers and cells, as torch.ao.quantization.quantize_dynamic makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn.utils import rnn

from tests.matrix.case import ENGINES, Apply, Case, uniform
from tests.matrix.dynamic import NO_ASYMMETRIC, bias_of, int8_weight

FP16 = ("fbgemm", "x86")
NO_FP16 = dict.fromkeys(("onednn", "qnnpack"), "PyTorch packs float16 weights for FBGEMM only")
MKL_TANH = "PyTorch's tanh is MKL's: its last bit differs from the correctly rounded one in 0.06 % of values"


def dynamic(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """Returns a seeded module, dynamically quantized, with some weights that stand out."""
    torch.manual_seed(7)
    module = make().eval()
    for parameter in module.parameters():
        parameter.data *= 1.7
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {type(module)}, dtype=dtype)
    return quantized[0]


def _rows(
    op: str, name: str, make: Callable[[], nn.Module], arrays: tuple[Any, ...], *, tanh: bool = True
) -> Iterator[Case]:
    for dtype in (torch.qint8, torch.float16):
        fp16 = dtype == torch.float16
        yield Case(
            op,
            f"{name}-{'fp16' if fp16 else 's8'}",
            lambda d=dtype: dynamic(make, d),
            arrays,
            engines=FP16 if fp16 else ENGINES,
            left_out=NO_FP16 if fp16 else {},
            ulp=2 if tanh else 0,
            reason=MKL_TANH if tanh else "",
        )


class States(nn.Module):
    """A layer that is given its states."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> Any:
        return self.layer(x, states if len(states) > 1 else states[0])


class PackedSequences(nn.Module):
    """A layer on a packed sequence of samples of these lengths, unpacked again."""

    def __init__(self, layer: nn.Module, lengths: tuple[int, ...]) -> None:
        super().__init__()
        self.layer = layer
        self.batch_first = bool(layer.batch_first)
        self.lengths = torch.tensor(lengths)

    def forward(self, x: torch.Tensor) -> Any:
        packed = rnn.pack_padded_sequence(x, self.lengths, self.batch_first, enforce_sorted=False)
        outputs, states = self.layer(packed)
        padded, lengths = rnn.pad_packed_sequence(outputs, self.batch_first, padding_value=-0.5, total_length=6)
        return padded, states, lengths + 0


def _packed_sequences() -> Iterator[Case]:
    """Layers on samples of differing lengths, both ways and stacked; a step's range is that of the samples it has."""
    forms: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        "sorted": ({}, (5, 3, 3, 1)),
        "batch_first": ({"batch_first": True}, (2, 5, 1, 2)),
        "both ways": ({"bidirectional": True, "num_layers": 2}, (4, 5, 2, 5)),
        "one length": ({"bidirectional": True}, (5, 5, 5, 5)),
    }
    for (name, (options, lengths)), kind in product(forms.items(), ("lstm", "gru")):
        shape = (4, 5, 9) if options.get("batch_first") else (5, 4, 9)
        for dtype in (torch.qint8, torch.float16):
            fp16 = dtype == torch.float16
            layer = getattr(nn, kind.upper())
            yield Case(
                f"aten::quantized_{kind}",
                f"packed sequence, {name}-{'fp16' if fp16 else 's8'}",
                lambda o=options, n=lengths, d=dtype, f=layer: PackedSequences(dynamic(lambda: f(9, 12, **o), d), n),
                (uniform(shape, 3),),
                engines=FP16 if fp16 else ENGINES,
                left_out=NO_FP16 if fp16 else {},
                ulp=2,
                reason=MKL_TANH,
            )


def _packed(scheme: str, hidden: int, gates: int, seed: int) -> Any:
    return torch.ops.quantized.linear_prepack(
        int8_weight(gates * hidden, hidden, seed, scheme), bias_of(gates * hidden, seed)
    )


def _schemes() -> Iterator[Case]:
    """Cells with weights that quantize_dynamic does not make: per channel, with zero points."""
    gates = {"lstm": 4, "gru": 3, "rnn_relu": 1, "rnn_tanh": 1}
    for (kind, count), scheme in product(gates.items(), ("per_channel", "per_tensor-asymmetric")):
        function = getattr(torch.ops.quantized, f"quantized_{kind}_cell_dynamic")

        def make(kind: str = kind, count: int = count, scheme: str = scheme, function: Any = function) -> nn.Module:
            def call(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b: Any) -> Any:
                return function(x, [h, c] if kind == "lstm" else h, w_ih, w_hh, b, b)

            weights = [_packed(scheme, 12, count, seed) for seed in (3, 4)]
            return Apply(call, w_ih=weights[0], w_hh=weights[1], b=bias_of(count * 12, 5))

        left_out = NO_ASYMMETRIC if scheme.endswith("-asymmetric") else {}
        yield Case(
            f"quantized::quantized_{kind}_cell_dynamic",
            scheme,
            make,
            tuple(uniform((3, 12), seed) for seed in (1, 2, 3)),
            engines=tuple(engine for engine in ENGINES if engine not in left_out),
            left_out=left_out,
            ulp=0 if kind == "rnn_relu" else 2,
            reason="" if kind == "rnn_relu" else MKL_TANH,
        )


def cases() -> Iterator[Case]:
    """Yields the rows."""
    cells: dict[str, Callable[..., nn.Module]] = {
        "lstm": nn.LSTMCell,
        "gru": nn.GRUCell,
        "rnn_tanh": nn.RNNCell,
        "rnn_relu": lambda *sizes: nn.RNNCell(*sizes, nonlinearity="relu"),
    }
    for (kind, cell), hidden in product(cells.items(), (8, 32, 45)):
        op, tanh = f"quantized::quantized_{kind}_cell_dynamic", kind != "rnn_relu"
        make = lambda cell=cell, hidden=hidden: cell(11, hidden)  # noqa: E731
        yield from _rows(op, f"h{hidden}", make, (uniform((3, 11), 1),), tanh=tanh)
        if hidden == 45:
            inputs = (uniform((3, 11), 1), *(uniform((3, hidden), 2 + i) for i in range(1 + (kind == "lstm"))))
            given = lambda cell=cell, hidden=hidden: cell(11, hidden)  # noqa: E731
            for case in _rows(op, f"h{hidden}-states", given, inputs, tanh=tanh):
                yield Case(
                    case.op,
                    case.variant,
                    lambda m=case.make: States(m()),
                    case.inputs,
                    case.engines,
                    case.left_out,
                    case.ulp,
                    case.reason,
                )
    layers: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU}
    forms = {
        "1layer": {},
        "batch_first": {"batch_first": True},
        "bidirectional": {"bidirectional": True},
        "2layers": {"num_layers": 2},
        "2layers-bidirectional-batch_first": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    }
    for (kind, layer), (name, options), hidden in product(layers.items(), forms.items(), (16, 40)):
        if hidden == 16 and name != "1layer":
            continue
        make = lambda layer=layer, hidden=hidden, options=options: layer(9, hidden, **options)  # noqa: E731
        yield from _rows(f"aten::quantized_{kind}", f"{name}-h{hidden}", make, (uniform((4, 2, 9), 3),))
    yield from _schemes()
    yield from _packed_sequences()
