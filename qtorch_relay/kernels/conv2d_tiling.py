"""Register tiles over output pixels, what they cost, and how work is cut for several threads."""

from __future__ import annotations

from dataclasses import dataclass

MIN_CHUNK_WORK = 1_200_000
"""A chunk takes at least about 5 us (in multiply-accumulates): below that a second thread costs more than it brings."""

MAX_CHUNKS = 8
"""Most iterations of the parallel loop per kernel call, so halos and weights are not loaded too often."""


def ceil_div(numerator: int, denominator: int) -> int:
    """Returns the quotient rounded up."""
    return -(-numerator // denominator)


@dataclass(frozen=True)
class Tiling:
    """Output pixels of one image as groups of register tiles; all offsets within a tile are constants.

    A group is `tiles` tiles of tile_h x tile_w pixels side by side and, if column_rest, one of tile_h x column_rest.
    After all groups comes one tile of shape `last`, if any. flat: the image is one sequence of pixels, a group is
    the next tile_w of them; otherwise a group is the next tile_h rows.
    """

    tile_h: int
    tile_w: int
    groups: int
    tiles: int
    column_rest: int = 0
    last: tuple[int, int] | None = None
    flat: bool = False

    @property
    def tiles_per_group(self) -> int:
        """Tiles of a group, the rest of the columns included."""
        return self.tiles + bool(self.column_rest)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(pixels, how often) of every kind of tile in an image."""
        kinds = [(self.tile_h * self.tile_w, self.groups * self.tiles)]
        kinds += [(self.tile_h * self.column_rest, self.groups)]
        kinds += [(self.last[0] * self.last[1], 1)] if self.last is not None else []
        return tuple((pixels, count) for pixels, count in kinds if pixels and count)


def row_tilings(out_h: int, out_w: int, max_pixels: int) -> list[Tiling]:
    """Returns the tilings of an image by rows, for tiles of at most max_pixels pixels."""
    found = [Tiling(1, w, out_h, out_w // w, out_w % w) for w in range(1, min(out_w, max_pixels) + 1)]
    for h in range(2, min(out_h, max_pixels // out_w) + 1):
        found.append(Tiling(h, out_w, out_h // h, 1, last=(out_h % h, out_w) if out_h % h else None))
    return found


def flat_tilings(count: int, max_pixels: int) -> list[Tiling]:
    """Returns the tilings of a sequence of `count` pixels."""
    return [
        Tiling(1, w, count // w, 1, last=(1, count % w) if count % w else None, flat=True)
        for w in range(1, min(count, max_pixels) + 1)
    ]


@dataclass(frozen=True)
class DotUnit:
    """What plans must know of an instruction set's dot product.

    lanes: int32 accumulators of a vector. registers: for accumulators, a row of weights and a vector of activations.
    dot_cycles, weight_cycles, spread_cycles: what the products of a vector take, and what is made of its weights and of
    activations before, where one full-width instruction is one cycle. steps: how often activations and weights are
    loaded for a dot.
    copied_bytes: of each activation in the copy it is read from, None if it is read where it is.
    in_tiles: registers have two dimensions; two of pixels, two of channels and their four of sums are used at once.
    source: how activations are read, see Dot.SOURCE.
    interleaves: a tile is requantized among the dots of the next one, for which some registers are left.
    at_once: dots whose activations one read takes; if several, what was read of every pixel is live through them.
    in_pairs: sums of two pixels share registers; dots are taken two at a time.
    dots_of_group: if lanes multiply what their own group reads, the accumulators of a vector of sums; else 0.
    """

    lanes: int
    registers: int
    dot_cycles: float = 1.0
    weight_cycles: float = 0.0
    steps: int = 1
    copied_bytes: int | None = None
    source: str = "uint8"
    in_tiles: bool = False
    interleaves: bool = False
    at_once: int = 1
    spread_cycles: float = 0.0
    in_pairs: bool = False
    dots_of_group: int = 0

    def max_pixels(self, vectors: int) -> int:
        """Returns the most pixels of a register tile of so many vectors of channels."""
        if self.in_tiles:
            return TILES_AT_ONCE * TILE_ROWS
        if self.in_pairs:
            # all accumulators and what was read of every pixel are live together, weights two registers at a time
            return (self.registers - 4) // (vectors + 1) // 2 * 2
        if self.at_once > 1:
            # all accumulators, what was read of every pixel, a row of weights and the next one are live together
            return (self.registers - 1 - 2 * vectors) // (vectors + 1)
        # all accumulators, one row of weights and one broadcast activation are live together
        vectors *= max(self.dots_of_group, 1)
        return (self.registers - 1 - vectors) // vectors


FIRST_CACHE_BYTES = 24 << 10
"""Weights of a block that stay in the first-level cache beside the activations."""


TILE_BYTES, TILE_ROWS = 64, 16
"""Bytes of a row of a tile register, and its rows."""

TILES_AT_ONCE = 2
"""Tile registers of pixels, and of channels."""


def tile_register_cycles(pixels: int, vectors: int, dots: int) -> float:
    """Returns about how many cycles a block of tile registers takes: a product of two tiles 16, a load of one 8.

    From the manufacturer's tables, not measured.
    """
    rows = ceil_div(pixels, TILE_ROWS)
    steps = dots // TILE_ROWS
    return steps * max(16 * rows * vectors, 8 * (rows + vectors)) + 2 * pixels * vectors + 32


def tile_cycles(pixels: int, vectors: int, dots: int, real: bool, unit: DotUnit) -> float:
    """Returns about how many cycles a register tile takes where one full-width dot product is one cycle.

    Measured on Zen 4. A dot has 4 cycles of latency, so fewer than 4 accumulators wait; each step loads a broadcast for
    every pixel and a vector of weights for every vector, from the second-level cache at about 30 bytes a cycle. The
    epilogue runs beside the dots of the next tile, the better the smaller the tile is; it packs 4 vectors at once.
    """
    if unit.in_tiles:
        return tile_register_cycles(pixels, vectors, dots)
    accumulators = pixels * vectors
    if unit.at_once > 1:
        return _cycles_by_element(pixels, vectors, dots, real, unit)
    far = dots * vectors * 64 > FIRST_CACHE_BYTES
    computing = accumulators * unit.dot_cycles + vectors * unit.weight_cycles
    per_dot = max(computing, 4, unit.steps * (pixels + vectors), 2.1 * vectors if far else 0)
    epilogue = 2.9 + 0.1 * accumulators if real else 1.8 + 0.035 * accumulators
    epilogue += {0: 0.0, 1: 0.6, 2: 0.2, 3: 0.4}[vectors % 4]
    # the last term prefers fewer passes over the weights where all else is equal
    return dots * per_dot + epilogue * accumulators + 6 + 0.02 * vectors * dots


def _cycles_by_element(pixels: int, vectors: int, dots: int, real: bool, unit: DotUnit) -> float:
    """Returns about how many cycles a tile takes of a processor of one 128-bit operation and one load a cycle.

    Loads go beside the products, but take part of what is decoded in a cycle. A dot has 4 cycles of latency, one of
    pairs is half of an instruction. To requantize a vector takes about 6 operations, or 8, and the narrowing of up to
    four of them 4 more; sums of pairs are first sorted by pixels.
    """
    if unit.in_pairs:
        pixels += pixels % 2
    accumulators = pixels * vectors
    loads = vectors + pixels / unit.at_once
    latency = 2 if unit.in_pairs else 4
    computing = accumulators * unit.dot_cycles + pixels * unit.spread_cycles
    # those of short reductions stay in registers, see _on_stack
    computing += vectors * unit.weight_cycles if dots * vectors > unit.registers else 0
    per_dot = max(computing, latency) + 0.3 * loads
    epilogue = (8.0 if real else 6.0) + (2.5 if unit.in_pairs else 1.5)
    # codes of 4, 2 or 1 vectors are stored at once
    stores = pixels * (vectors // 4 + vectors % 4 // 2 + vectors % 2)
    tile = accumulators * (epilogue + 0.5) + 2 * stores + 10
    return dots * per_dot + tile + 1.5 * _on_stack(pixels, vectors, dots, unit)


def _on_stack(pixels: int, vectors: int, dots: int, unit: DotUnit) -> int:
    """Returns how many registers of weights a tile reads from the stack.

    The code of a short reduction is straight, and LLVM takes its weights out of the loop over tiles: those that do not
    fit beside the accumulators, what is read of pixels and about 6 constants of the epilogue go to the stack. Longer
    reductions, and products of several instructions, remain loops.
    """
    weights = dots * vectors
    if unit.dot_cycles > 1 or weights > unit.registers:
        return 0
    return max(0, weights + pixels * vectors + pixels + 6 - unit.registers)


def choose_chunks(
    macs: int, batch: int, pixel_groups: int, channel_units: int, weight_bytes: int, copy_bytes: int
) -> tuple[int, int]:
    """Returns (bands of pixel groups, parts of the channels): enough chunks for several threads.

    Among those it takes the fastest on two threads, with the copying and loading that chunks repeat.
    """
    # 64 multiply-accumulates a cycle; weights arrive at about 8 bytes a cycle from the third-level cache
    work = max(macs, 8 * weight_bytes)
    wanted = min(MAX_CHUNKS, work // MIN_CHUNK_WORK) // batch
    cycles = work / 64
    found = [(float("inf"), 1, 1)]
    for bands in range(1, min(pixel_groups, wanted) + 1):
        for parts in range(1, min(channel_units, wanted // bands) + 1):
            chunks = bands * parts * batch
            band, part = ceil_div(pixel_groups, bands) / pixel_groups, ceil_div(channel_units, parts) / channel_units
            slowest = ceil_div(chunks, 2) * band * part * cycles / batch
            repeated = copy_bytes * parts / 12 + weight_bytes * bands / 24
            found.append((slowest + repeated - 0.01 * cycles * chunks / MAX_CHUNKS, bands, parts))
    _, bands, parts = min(found)
    return bands, parts
