"""Where the time of each network goes: every call of its program against the dot-product peak, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qtorch_relay as qr
from benchmarks.network import quantized_network, random_input
from benchmarks.results import ENGINES, Results
from qtorch_relay.kernels.measure import host_peak_gmacs
from qtorch_relay.runtime.layer_times import LayerTime, LayerTimes, layer_times

RUNS = 30


def measure(models: Sequence[str], each: Callable[[], None]) -> dict[str, LayerTimes]:
    """Returns what each layer takes, batch 1 on one thread; calls each after every network."""
    qr.set_num_threads(1)
    found = {}
    for model in models:
        example = random_input(model, 1)
        network = quantized_network(model, ENGINES[0])
        compiled = qr.compile(network, [("x", tuple(example.shape))], engine=ENGINES[0])
        found[model] = layer_times(compiled, [example.numpy()], RUNS, host_peak_gmacs(1))
        each()
    return found


def markdown(results: Results, found: dict[str, LayerTimes]) -> str:
    """Returns a section for each network: a table by kernel and one of all calls in order."""
    parts = [
        "# Layers\n",
        f"{results.cpu}, target {results.target}, {results.date}, `{results.command}`: batch 1, one thread, medians of "
        f"{RUNS} runs. Each call is measured with a microsecond or two of measuring. Of the peak: multiply-accumulates "
        "a second, against what the dot-product instruction reaches in the same run.\n",
    ]
    for model, times in found.items():
        share = "" if times.share_of_peak is None else f", {times.share_of_peak:.0%} of the peak"
        parts.append(f"## {model}\n\nA call takes {times.latency_us / 1e3:.3f} ms{share}.\n")
        parts += [_by_kernel(times), _all(times)]
    return "\n".join(parts)


def _by_kernel(times: LayerTimes) -> str:
    kernels: dict[str, list[LayerTime]] = {}
    for layer in times.layers:
        kernels.setdefault(_kernel(layer), []).append(layer)
    lines = ["| kernel | calls | us | of the time | M MACs | of the peak |", "|---|---|---|---|---|---|"]
    for name, layers in sorted(kernels.items(), key=lambda item: -_sum_us(item[1])):
        macs = sum(layer.macs for layer in layers)
        lines.append(f"| {name} | {len(layers)} | {_figures(_sum_us(layers), macs, times)} |")
    return "\n".join([*lines, ""])


def _all(times: LayerTimes) -> str:
    lines = ["| layer | kernel | us | of the time | M MACs | of the peak |", "|---|---|---|---|---|---|"]
    for layer in times.layers:
        lines.append(f"| {layer.layer} | {_kernel(layer)} | {_figures(layer.latency_us, layer.macs, times)} |")
    return "\n".join(["<details><summary>every call</summary>\n", *lines, "\n</details>\n"])


def _kernel(layer: LayerTime) -> str:
    return "generic code" if layer.kernel is None else layer.kernel.split("__")[0]


def _sum_us(layers: Sequence[LayerTime]) -> float:
    return sum(layer.latency_us for layer in layers)


def _figures(latency_us: float, macs: int, times: LayerTimes) -> str:
    peak = times.peak_gmacs
    share = f"{macs / latency_us / 1e3 / peak:.0%}" if macs and peak is not None else ""
    return f"{latency_us:.1f} | {latency_us / times.sum_us:.1%} | {macs / 1e6:.2f} | {share}"
