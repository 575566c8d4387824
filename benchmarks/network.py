"""A network in every form that is timed, and its latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import qtorch_relay as qr
from accuracy_reports.zoo import IMAGE_SIZES, float_model, quantized_model, random_images
from benchmarks import encoder
from benchmarks.results import ENGINES, FLOAT, OURS, PYTORCH, Row
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.kernels.measure import peak_program
from qtorch_relay.peers import STARTS, PeerUnavailableError, export_for_peers, interleave, onnx_programs

PEAK = "dot products alone"

MODELS = (*IMAGE_SIZES, encoder.NAME)


def float_network(model: str) -> torch.nn.Module:
    """Returns a network in float."""
    return encoder.float_encoder() if model == encoder.NAME else float_model(model, ENGINES[0]).module


def quantized_network(model: str, engine: str) -> torch.nn.Module:
    """Returns a network in int8, packed for an engine."""
    return encoder.quantized_encoder(engine) if model == encoder.NAME else quantized_model(model, engine).module


def random_input(model: str, batch: int) -> torch.Tensor:
    """Returns a network's seeded input."""
    return encoder.random_tokens(batch) if model == encoder.NAME else random_images(batch, IMAGE_SIZES[model], seed=1)


class Network:
    """A network in all the forms that are timed, for one batch size.

    Ours is the network of the first engine, and so are ONNX Runtime's and OpenVINO's: the same codes and scales.
    """

    def __init__(self, model: str, batch: int, *, with_float: bool, engines: Sequence[str] = ENGINES) -> None:
        self.model, self.batch = model, batch
        self.missing: dict[str, str] = {}
        self.calls: dict[str, Callable[[], Any]] = {}
        self.onnx: dict[str, dict[str, bytes]] = {}
        self.input = random_input(model, batch)
        original = float_network(model)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            original(self.input)
        self.macs = counter.get_total_flops() // 2
        for engine in engines:
            self._add_engine(engine)
        if with_float:
            with torch.inference_mode():
                self._add_torch(FLOAT, torch.jit.freeze(torch.jit.trace(original, self.input)))
            self._export(FLOAT, original)

    def _add_engine(self, engine: str) -> None:
        network = quantized_network(self.model, engine)
        with quantized_engine(engine), torch.inference_mode():
            traced = torch.jit.freeze(torch.jit.trace(network, self.input).eval())
        self._add_torch(f" {engine}", traced, engine)
        if OURS not in self.calls:
            compiled = qr.compile(traced, [("x", tuple(self.input.shape))], engine=engine)
            array = self.input.numpy()
            self.calls[OURS] = lambda: compiled(array)
            self._export("", network)

    def _add_torch(self, suffix: str, module: Any, engine: str = ENGINES[0]) -> None:
        def run() -> Any:
            # Dynamically quantized layers ask when they run which engine it is.
            with quantized_engine(engine):
                return module(self.input)

        self.calls[PYTORCH + suffix] = run

    def _export(self, suffix: str, module: torch.nn.Module) -> None:
        try:
            self.onnx[suffix] = export_for_peers(module, [self.input])
        except PeerUnavailableError as error:
            self.missing |= {f"{peer}{suffix}": str(error) for peer in STARTS}

    @property
    def programs(self) -> int:
        """How many programs are timed, that of the peak included."""
        return len(self.calls) + len(self.onnx) * len(STARTS) + 1

    def measure(self, num_threads: int, rounds: int, each: Callable[[], None]) -> Row:
        """Returns the medians on a number of threads; calls each after every turn of a program."""
        torch.set_num_threads(num_threads)
        qr.set_num_threads(num_threads)
        calls, missing = dict(self.calls), dict(self.missing)
        for suffix, models in self.onnx.items():
            found, refused = onnx_programs(models, [self.input.numpy()], num_threads)
            calls |= {f"{peer}{suffix}": call for peer, call in found.items()}
            missing |= {f"{peer}{suffix}": why for peer, why in refused.items()}
        calls[PEAK] = peak_program(self.macs // num_threads)
        with torch.inference_mode():
            samples = interleave(calls, rounds, each)
        latency_ms = {name: round(median(values), 4) for name, values in samples.items()}
        peak_gmacs = round(self.macs / latency_ms.pop(PEAK) / 1e6, 1)
        return Row(self.model, self.batch, num_threads, latency_ms, missing, self.macs, peak_gmacs)
