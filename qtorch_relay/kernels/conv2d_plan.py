"""How a convolution is cut into register tiles and parallel chunks; plain numbers, no TVM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from qtorch_relay.kernels.conv2d_tiling import (
    TILE_BYTES,
    TILES_AT_ONCE,
    DotUnit,
    Tiling,
    ceil_div,
    choose_chunks,
    flat_tilings,
    row_tilings,
    tile_cycles,
)
from qtorch_relay.kernels.spec import Conv2dSpec

if TYPE_CHECKING:
    from qtorch_relay.kernels.isa import Isa, PairedPixels

DOT_BYTES = 4
"""Activations one lane of a dot product consumes."""

MAX_GATHERING_DOTS = 64
"""Reductions of more dots gain too little from gathered rests: the first layers of networks have fewer."""

MAX_COPIED_BYTES = 256 << 10
"""Most bytes of a copy that is made for the dot products, where it can be cut into bands."""

MAX_VECTORS = 6
"""Most vectors of output channels in a register tile."""

Tiles: TypeAlias = tuple[int, int, Tiling]
"""Images in the outer loop, vectors in each block, tiling."""

_used_tiles: ContextVar[tuple[Mapping[Any, Tiles], dict[Any, DotUnit]] | None] = ContextVar("used_tiles", default=None)


@dataclass(frozen=True)
class Reduction:
    """The products of one output as `rows * segments` runs of `run` contiguous input bytes.

    run is cut into dots of 4 bytes. A rest of 1 to 3 bytes is read as the last 4 bytes of the run, with zero weights
    for the bytes already used, so nothing is read past the run; only runs under 4 bytes read past it. If gathers, the
    rests of several rows are first put side by side, one dot for them all.
    """

    rows: int
    segments: int
    run: int
    gathers: bool = False

    @property
    def full_dots(self) -> int:
        """Dots at offsets 0, 4, 8, ..."""
        return self.run // DOT_BYTES

    @property
    def rest(self) -> int:
        """Bytes of a run after its full dots."""
        return self.run % DOT_BYTES

    @property
    def last_offset(self) -> int | None:
        """Offset of the dot that covers the rest, or None if there is no such dot."""
        return max(self.run - DOT_BYTES, 0) if self.rest and not self.gathers else None

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets of the dots within a run."""
        full = tuple(range(0, self.full_dots * DOT_BYTES, DOT_BYTES))
        return full if self.last_offset is None else (*full, self.last_offset)

    @property
    def gathered(self) -> tuple[tuple[int, ...], ...]:
        """The rows of each dot of gathered rests."""
        if not self.gathers:
            return ()
        count = DOT_BYTES // self.rest
        return tuple(tuple(range(row, min(row + count, self.rows))) for row in range(0, self.rows, count))

    @property
    def dots(self) -> int:
        """Dots of the whole reduction: run after run, then the gathered ones."""
        return self.rows * self.segments * len(self.offsets) + len(self.gathered)


@dataclass(frozen=True)
class TileReduction(Reduction):
    """A reduction of tile registers: runs are read in steps of 64 bytes, past their end with weights of zero."""

    @property
    def full_dots(self) -> int:
        """Dots at offsets 0, 4, 8, ..., those past the end of the run included."""
        return ceil_div(self.run, TILE_BYTES) * TILE_BYTES // DOT_BYTES

    @property
    def last_offset(self) -> int | None:
        """Returns None: a step covers the rest."""
        return None


@dataclass(frozen=True)
class SmallGroupsReduction(Reduction):
    """A reduction of 16 channels of several groups: each run takes the dots of one group's channels, all of which read
    the whole run.
    """

    dots_of_run: int = 1

    @property
    def full_dots(self) -> int:
        """Dots of an output in a run."""
        return self.dots_of_run


@dataclass(frozen=True)
class ChannelGroups:
    """Groups of channels that share no weights; the outputs of a group fill at least one vector where possible.

    Small groups of the convolution are merged, with zero weights between them: `merged` groups become one.
    """

    count: int
    merged: int
    in_channels: int
    out_channels: int


@dataclass(frozen=True)
class Conv2dPlan:
    """Everything the loop nest and the weight packing need to know.

    batch: images in the outer loop; 1 where a flat tiling covers all images.
    vectors: vectors of output channels in each of `blocks` blocks of a group; rest_vectors: in one smaller or partly
    filled block after them, or 0.
    copies_input: the kernel first copies its rows into scratch memory, padded, as uint8.
    bands, channel_parts: the parallel loop runs over images x bands of pixel groups x parts of the channels, which are
    groups, or blocks if there is one group.
    interleaves: full tiles are requantized among the dots of the next one.
    in_pairs: sums of two pixels share registers, and dots are taken two at a time.
    row_pitch: bytes between input rows as the reduction reads them.
    """

    reduction: Reduction
    groups: ChannelGroups
    batch: int
    tiling: Tiling
    vectors: int
    blocks: int
    rest_vectors: int
    copies_input: bool
    bands: int
    channel_parts: int
    row_pitch: int
    interleaves: bool = False
    in_pairs: bool = False

    @property
    def group_vectors(self) -> int:
        """Vectors of output channels of a group, the last one padded."""
        return self.blocks * self.vectors + self.rest_vectors

    @property
    def padded_vectors(self) -> int:
        """Vectors of output channels."""
        return self.groups.count * self.group_vectors

    @property
    def max_tiles_per_chunk(self) -> int:
        """Most tiles of a chunk, but for the last one."""
        return ceil_div(self.tiling.groups, self.bands) * self.tiling.tiles_per_group

    @property
    def chunks(self) -> int:
        """Iterations of the parallel loop."""
        return self.batch * self.bands * self.channel_parts


def channel_groups(spec: Conv2dSpec, lanes: int) -> ChannelGroups:
    """Returns the groups the kernel computes with: at least `lanes` output channels each if there are so many."""
    group_in, group_out = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    merged = next(
        m for m in range(1, spec.groups + 1) if spec.groups % m == 0 and (m * group_out >= lanes or m == spec.groups)
    )
    return ChannelGroups(spec.groups // merged, merged, merged * group_in, merged * group_out)


def reduction_of(spec: Conv2dSpec, groups: ChannelGroups) -> Reduction:
    """Returns the reduction; a kernel row over all channels without dilation is one contiguous run in NHWC."""
    if groups.count > 1 or spec.dilation[1] != 1:
        return Reduction(spec.kernel_h, spec.kernel_w, groups.in_channels)
    plain = Reduction(spec.kernel_h, 1, spec.kernel_w * spec.in_channels)
    if plain.rest not in (1, 2) or plain.rows == 1:
        return plain
    gathering = replace(plain, gathers=True)
    # gathering a dot takes about 3 cycles, a dot of a vector of channels 1
    saved = (plain.dots - gathering.dots) * (spec.out_channels // 16)
    return gathering if saved > 3 * len(gathering.gathered) and plain.dots < MAX_GATHERING_DOTS else plain


def plan_for(isa: Isa, spec: Conv2dSpec) -> Conv2dPlan:
    """Returns the plan for an instruction set, with the tiles that `use_tiles` says if it says some."""
    unit, used = dot_unit(isa, spec), _used_tiles.get()
    if used is None:
        return plan_conv2d(spec, unit)
    chosen, asked = used
    asked[isa.NAME, spec] = unit
    return plan_conv2d(spec, unit, chosen.get((isa.NAME, spec)))


@contextmanager
def use_tiles(chosen: Mapping[tuple[str, Conv2dSpec], Tiles]) -> Iterator[Mapping[tuple[str, Conv2dSpec], DotUnit]]:
    """Gives the kernels that are built and packed within the block these tiles, by instruction set and spec.

    Yields what is asked for within the block, these or not. Tiles never change codes.
    """
    asked: dict[tuple[str, Conv2dSpec], DotUnit] = {}
    token = _used_tiles.set((chosen, asked))
    try:
        yield asked
    finally:
        _used_tiles.reset(token)


def dot_unit(isa: Isa, spec: Conv2dSpec) -> DotUnit:
    """Returns what plans must know of the dot product that computes a spec."""
    dot = isa.dot_for(spec.pair_sums)
    if isa.tiles is not None:
        return DotUnit(isa.LANES, isa.REGISTERS, copied_bytes=1, in_tiles=True)
    unit = DotUnit(
        isa.LANES,
        isa.REGISTERS - dot.EXTRA_REGISTERS,
        dot.CYCLES,
        dot.WEIGHT_CYCLES,
        dot.STEPS,
        np.dtype(dot.SOURCE).itemsize if dot.SOURCE not in ("uint8", spec.in_dtype) else None,
        source=dot.SOURCE,
        interleaves=isa.requantizes_among_dots,
        at_once=dot.AT_ONCE,
        spread_cycles=dot.SPREAD_CYCLES,
    )
    if dot.STEPS == 1 and has_small_groups(spec, isa.LANES):
        return replace(unit, dots_of_group=spec.in_channels // spec.groups // DOT_BYTES)
    pairs = pairs_for(isa, spec)
    if pairs is None:
        return unit
    return replace(unit, dot_cycles=pairs.CYCLES, spread_cycles=pairs.SPREAD_CYCLES, in_pairs=True)


SMALL_GROUPS_CHANNELS = 16
"""Channels of a quarter of a register, and lanes."""


def has_small_groups(spec: Conv2dSpec, lanes: int) -> bool:
    """Says whether groups take and give 4 or 8 channels, of which 16 channels are several."""
    group_in, group_out = spec.in_channels // spec.groups, spec.out_channels // spec.groups
    whole = lanes == SMALL_GROUPS_CHANNELS and spec.in_channels % SMALL_GROUPS_CHANNELS == 0
    return whole and group_in == group_out and group_in in (DOT_BYTES, 2 * DOT_BYTES)


def pairs_for(isa: Isa, spec: Conv2dSpec) -> PairedPixels | None:
    """Returns what multiplies two pixels at a time, or None where there is but one or a run has a single dot."""
    reduction = reduction_of(spec, channel_groups(spec, isa.LANES))
    if spec.batch * spec.out_h * spec.out_w == 1 or reduction.run % (2 * DOT_BYTES):
        return None
    return isa.pairs


def plan_conv2d(spec: Conv2dSpec, unit: DotUnit, tiles: Tiles | None = None) -> Conv2dPlan:
    """Returns the plan with these tiles, or with those of the least estimated time."""
    lanes = unit.lanes
    batch, vectors, tiling = tile_candidates(spec, unit)[0] if tiles is None else tiles
    plan = make_plan(spec, unit, batch, vectors, tiling)
    copied = 0
    if plan.copies_input:
        copied = ((spec.out_h - 1) * spec.stride[0] + spec.span_h) * plan.row_pitch * (unit.copied_bytes or 1)
    bands, channel_parts = choose_chunks(
        macs=spec.macs,
        batch=batch,
        pixel_groups=tiling.groups,
        channel_units=plan.groups.count if plan.groups.count > 1 else plan.blocks,
        weight_bytes=plan.padded_vectors * lanes * plan.reduction.dots * DOT_BYTES,
        copy_bytes=copied,
    )
    if unit.copied_bytes is not None:
        # copies of a whole image would leave the second-level cache
        images = spec.batch // batch
        bands = max(bands, min(tiling.groups, ceil_div(copied * images, MAX_COPIED_BYTES)))
    return replace(plan, bands=bands, channel_parts=channel_parts)


def tile_candidates(spec: Conv2dSpec, unit: DotUnit) -> list[Tiles]:
    """Returns all choices of tiles by their estimated time, best first."""
    return sorted(tile_options(spec, unit), key=lambda tiles: _cost(spec, unit, *tiles))


def make_plan(spec: Conv2dSpec, unit: DotUnit, batch: int, vectors: int, tiling: Tiling) -> Conv2dPlan:
    """Returns the plan with these tiles, in one chunk an image."""
    groups = channel_groups(spec, unit.lanes)
    reduction = _reduction(spec, groups, unit)
    copies = unit.copied_bytes is not None or _copies_input(spec, reduction, unit)
    blocks, rest = _blocks(groups, vectors, unit.lanes)
    used_w = (spec.out_w - 1) * spec.stride[1] + spec.span_w
    row_pitch = (used_w if copies else spec.in_w) * spec.in_channels
    # the dots of small groups are all taken at once, and fill the registers
    interleaves = unit.interleaves and not unit.dots_of_group and _can_interleave(reduction, tiling, (vectors, rest))
    return Conv2dPlan(
        reduction, groups, batch, tiling, vectors, blocks, rest, copies, 1, 1, row_pitch, interleaves, unit.in_pairs
    )


MAX_INTERLEAVED_DOTS = 40
"""Longer reductions gain too little for what memory for the sums costs."""

MIN_INTERLEAVED_TILES = 4
"""Fewer full tiles of a block are requantized one after the other: the last one has no dots to wait among."""


def pixels_at_once(vectors: int) -> int:
    """Returns how many pixels of so many vectors are requantized together: vectors are packed four at a time."""
    return 4 // math.gcd(vectors, 4)


def _can_interleave(reduction: Reduction, tiling: Tiling, blocks: tuple[int, ...]) -> bool:
    """Says whether each run of dots has one for every part of a tile that is requantized in it."""
    if tiling.groups * tiling.tiles < MIN_INTERLEAVED_TILES or reduction.dots > MAX_INTERLEAVED_DOTS:
        return False
    parts = (ceil_div(tiling.tile_h * tiling.tile_w, pixels_at_once(vectors)) for vectors in blocks if vectors)
    return all(ceil_div(part, reduction.rows * reduction.segments) <= reduction.full_dots for part in parts)


def tile_options(spec: Conv2dSpec, unit: DotUnit) -> list[Tiles]:
    """Returns every choice of tiles that fit the registers."""
    groups = channel_groups(spec, unit.lanes)
    copies = _copies_input(spec, reduction_of(spec, groups), unit)
    pointwise = spec.kernel_h == spec.kernel_w == 1 and spec.stride == (1, 1)
    options: list[Tiles] = []
    most_vectors = TILES_AT_ONCE if unit.in_tiles else MAX_VECTORS
    for vectors in range(1, min(ceil_div(groups.out_channels, unit.lanes), most_vectors) + 1):
        max_pixels = unit.max_pixels(vectors)
        if not max_pixels:
            break
        by_rows = row_tilings(spec.out_h, spec.out_w, max_pixels)
        # the pixels of a tile register lie in one row, as far from each other as the first two
        options += [(spec.batch, vectors, tiling) for tiling in by_rows if tiling.tile_h == 1 or not unit.in_tiles]
        if pointwise and not copies:
            # without padding and stride the pixels of all images are one sequence
            count = spec.batch * spec.out_h * spec.out_w
            options += [(1, vectors, tiling) for tiling in flat_tilings(count, max_pixels)]
    return options


def _reduction(spec: Conv2dSpec, groups: ChannelGroups, unit: DotUnit) -> Reduction:
    """Returns the reduction as the registers take it."""
    reduction = reduction_of(spec, groups)
    if unit.dots_of_group:
        return SmallGroupsReduction(spec.kernel_h, spec.kernel_w, SMALL_GROUPS_CHANNELS, dots_of_run=unit.dots_of_group)
    return TileReduction(reduction.rows, reduction.segments, reduction.run) if unit.in_tiles else reduction


def _copies_input(spec: Conv2dSpec, reduction: Reduction, unit: DotUnit) -> bool:
    moved = spec.in_dtype == "int8" and unit.source != "int8"
    return any(spec.padding) or moved or reduction.run < DOT_BYTES


def _cost(spec: Conv2dSpec, unit: DotUnit, batch: int, vectors: int, tiling: Tiling) -> tuple[float, int]:
    """Returns (estimated cycles of a channel group, kinds of tiles)."""
    groups = channel_groups(spec, unit.lanes)
    dots = _reduction(spec, groups, unit).dots
    blocks, rest = _blocks(groups, vectors, unit.lanes)
    real = spec.requantize == "real"
    cycles = 0.0
    for pixels, count in tiling.shapes:
        cycles += batch * count * blocks * tile_cycles(pixels, vectors, dots, real, unit)
        cycles += batch * count * tile_cycles(pixels, rest, dots, real, unit) if rest else 0
    kinds = len(tiling.shapes) * (2 if rest else 1)
    # every kind of tile is its own code: half a percent for compile time and instruction cache
    return cycles * (1 + 0.005 * kinds), kinds


def _blocks(groups: ChannelGroups, vectors: int, lanes: int) -> tuple[int, int]:
    """Returns the full blocks of a group, and the vectors of the smaller or partly filled block after them."""
    blocks = groups.out_channels // (vectors * lanes)
    return blocks, ceil_div(groups.out_channels, lanes) - blocks * vectors
