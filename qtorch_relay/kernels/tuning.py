"""Tuning: the register tiles of each convolution and dense layer, timed on this machine. Codes never change.

The planner's estimate ranks the tiles; the few best of them are timed, as long as there is time. A layer keeps the
planner's choice unless another is clearly faster.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtorch_relay.kernels.conv2d_plan import Tiles, tile_candidates, use_tiles
from qtorch_relay.kernels.conv2d_tiling import DotUnit
from qtorch_relay.kernels.measure import timer_in_network
from qtorch_relay.kernels.spec import Conv2dSpec, outputs_of
from qtorch_relay.kernels.table import Kernel, select
from qtorch_relay.kernels.tuning_cache import Entry, TuningCache

CANDIDATES, WIDTHS = 6, 4
SAMPLES = 7
MIN_GAIN = 0.03
"""What another choice must gain to be taken: medians of the same code differ by about a hundredth."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found: tiles by instruction set and convolution, and what it did.

    layers: distinct layers that have tiles; timed: choices that were timed now; changed: layers that do not take the
    planner's choice; seconds: how long it took.
    """

    tiles: Mapping[tuple[str, Conv2dSpec], Tiles]
    layers: int
    timed: int
    changed: int
    seconds: float


@dataclass
class _Layer:
    """A kernel's spec and the convolution whose tiles it takes, with the choices left to time."""

    kernel: Kernel
    spec: Any
    isa: str
    conv: Conv2dSpec
    work: int
    entry: Entry
    candidates: list[Tiles]
    best: Callable[[], float] | None = None

    def timer(self, tiles: Tiles) -> Callable[[], float]:
        """Returns a timer of the kernel with these tiles, on random arguments."""
        inputs, constants = self.kernel.arguments(self.spec, 0, False)
        with use_tiles({(self.isa, self.conv): tiles}):
            function, packed = self.kernel.build(self.spec), self.kernel.pack(self.spec, *constants)
        outs = [np.zeros(shape, dtype) for shape, dtype in outputs_of(self.spec)]
        return timer_in_network(function, inputs, packed, outs, self.kernel.isa)


def tune(
    isa: str,
    specs: Iterable[Any],
    seconds: float,
    cache: TuningCache,
    progress: Callable[[float], None] = lambda _: None,
) -> Tuned:
    """Returns the tiles for these specs, those of the cache and what can be timed in the seconds there are.

    specs: one of each call, so that layers that occur often come first. progress: told the share of the time that is
    gone, 1 at the end. What is found is added to the cache.
    """
    start = time.perf_counter()
    layers = _layers(isa, specs, cache)
    timed = 0
    # All layers' second choices, then all third ones: what is tried first matters most.
    for rank in range(1, CANDIDATES):
        for layer in layers:
            gone = (time.perf_counter() - start) / seconds if seconds > 0 else 1.0
            if gone >= 1:
                break
            if rank == layer.entry.tried and rank < len(layer.candidates):
                progress(gone)
                _try(layer, rank)
                timed += 1
                cache.put(layer.kernel.isa, layer.kernel.name, layer.conv, layer.entry)
    progress(1.0)
    if timed:
        cache.write()
    tiles = {(layer.isa, layer.conv): layer.entry.tiles for layer in layers}
    changed = sum(layer.entry.tiles != layer.candidates[0] for layer in layers)
    return Tuned(tiles, len(layers), timed, changed, time.perf_counter() - start)


def choices(conv: Conv2dSpec, unit: DotUnit) -> list[Tiles]:
    """Returns the tiles to time: the planner's choice, the best of other widths of blocks, and the next best of all."""
    ranked = tile_candidates(conv, unit)
    by_vectors: dict[int, Tiles] = {}
    for tiles in ranked:
        by_vectors.setdefault(tiles[1], tiles)
    return list(dict.fromkeys([*list(by_vectors.values())[:WIDTHS], *ranked]))[:CANDIDATES]


def _layers(isa: str, specs: Iterable[Any], cache: TuningCache) -> list[_Layer]:
    """Returns the distinct layers that have tiles, those with the most work first."""
    layers = []
    for spec, count in Counter(specs).items():
        kernel = select(isa, spec)
        for (name, conv), unit in _convolutions(kernel, spec).items():
            candidates = choices(conv, unit)
            entry = cache.get(kernel.isa, kernel.name, conv)
            # A cache may come from another version: what it has must be a choice that there is.
            if entry is None or entry.tiles not in tile_candidates(conv, unit):
                entry = Entry(candidates[0], 1)
            layers.append(_Layer(kernel, spec, name, conv, conv.macs * count, entry, candidates))
    return sorted(layers, key=lambda layer: layer.work, reverse=True)


def _convolutions(kernel: Kernel, spec: Any) -> Mapping[tuple[str, Conv2dSpec], DotUnit]:
    """Returns the convolutions whose tiles a kernel takes."""
    with use_tiles({}) as asked:
        kernel.build(spec)
    return asked


def _try(layer: _Layer, rank: int) -> None:
    """Times a choice beside the best one so far and keeps the faster."""
    tiles = layer.candidates[rank]
    layer.entry = Entry(layer.entry.tiles, rank + 1)
    if tiles == layer.entry.tiles:
        return
    best, other = layer.best or layer.timer(layer.entry.tiles), layer.timer(tiles)
    best(), other()
    samples = [(best(), other()) for _ in range(SAMPLES)]
    # nearly always: what disturbs the machine meanwhile must not decide
    faster = sum(other_s < best_s * (1 - MIN_GAIN) for best_s, other_s in samples) >= SAMPLES - 1
    layer.best = other if faster else best
    if faster:
        layer.entry = Entry(tiles, rank + 1)
