"""How a convolution is cut into register tiles and parallel chunks; plain numbers, no TVM."""

from __future__ import annotations

from dataclasses import dataclass

from qtorch_relay.kernels.spec import Conv2dSpec

DOT_BYTES = 4
"""Activations one lane of a dot product consumes."""

MIN_CHUNK_MACS = 1_200_000
"""A chunk takes at least about 5 us: below that a second thread costs more than it brings."""

MAX_CHUNKS = 8
"""Most iterations of the parallel loop per kernel call, so halos and weights are not loaded too often."""

MAX_VECTORS = 6
"""Most vectors of output channels in a register tile."""


def ceil_div(numerator: int, denominator: int) -> int:
    """Returns the quotient rounded up."""
    return -(-numerator // denominator)


@dataclass(frozen=True)
class Reduction:
    """The products of one output as `rows * segments` runs of `run` contiguous input bytes.

    run is cut into dots of 4 bytes. A rest that is no multiple of 4 is read as the last 4 bytes of the run, with zero
    weights for the bytes already used, so nothing is read past the run; only runs under 4 bytes read past it.
    """

    rows: int
    segments: int
    run: int

    @property
    def full_dots(self) -> int:
        """Dots at offsets 0, 4, 8, ..."""
        return self.run // DOT_BYTES

    @property
    def last_offset(self) -> int | None:
        """Offset of the dot that covers the rest, or None if there is no rest."""
        return max(self.run - DOT_BYTES, 0) if self.run % DOT_BYTES else None

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets of all dots within a run."""
        full = tuple(range(0, self.full_dots * DOT_BYTES, DOT_BYTES))
        return full if self.last_offset is None else (*full, self.last_offset)

    @property
    def dots(self) -> int:
        """Dots of the whole reduction."""
        return self.rows * self.segments * len(self.offsets)


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
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(pixels, how often) of every kind of tile in an image."""
        kinds = [(self.tile_h * self.tile_w, self.groups * self.tiles)]
        kinds += [(self.tile_h * self.column_rest, self.groups)]
        kinds += [(self.last[0] * self.last[1], 1)] if self.last is not None else []
        return tuple((pixels, count) for pixels, count in kinds if pixels and count)


@dataclass(frozen=True)
class Conv2dPlan:
    """Everything the loop nest and the weight packing need to know.

    batch: images in the outer loop; 1 where a flat tiling covers all images.
    vectors: vectors of output channels in each of `blocks` blocks; rest_vectors: in one smaller block after them, or 0.
    copies_input: the kernel first copies its rows into scratch memory, padded, as uint8.
    bands, block_groups: the parallel loop runs over images x bands of pixel groups x groups of channel blocks.
    row_pitch: bytes between input rows as the reduction reads them.
    """

    reduction: Reduction
    batch: int
    tiling: Tiling
    vectors: int
    blocks: int
    rest_vectors: int
    copies_input: bool
    bands: int
    block_groups: int
    row_pitch: int

    @property
    def padded_vectors(self) -> int:
        """Vectors of output channels, the last one padded."""
        return self.blocks * self.vectors + self.rest_vectors

    @property
    def chunks(self) -> int:
        """Iterations of the parallel loop."""
        return self.batch * self.bands * self.block_groups


def reduction_of(spec: Conv2dSpec) -> Reduction:
    """Returns the reduction; a kernel row without column dilation is one contiguous run in NHWC."""
    if spec.dilation[1] == 1 or spec.kernel_w == 1:
        return Reduction(spec.kernel_h, 1, spec.kernel_w * spec.in_channels)
    return Reduction(spec.kernel_h, spec.kernel_w, spec.in_channels)


def tile_cycles(pixels: int, vectors: int, dots: int) -> float:
    """Returns about how many cycles a register tile takes where one full-width dot product is one cycle.

    A dot has 4 cycles of latency, so fewer than 4 accumulators wait. An accumulator's epilogue costs about 5 cycles,
    a tile's set-up about 20; weights stream from the second-level cache.
    """
    accumulators = pixels * vectors
    per_dot = max(accumulators, 4, pixels + vectors) + 0.15 * vectors
    return dots * per_dot + 5 * accumulators + 20


def tilings(out_h: int, out_w: int, max_pixels: int) -> list[Tiling]:
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


def choose_chunks(
    macs: int, batch: int, groups: int, blocks: int, weight_bytes: int, copy_bytes: int
) -> tuple[int, int]:
    """Returns (bands, block groups): enough chunks for several threads at the least repeated copying and loading."""
    wanted = min(MAX_CHUNKS, macs // MIN_CHUNK_MACS) // batch
    cycles = macs / 64
    found = [(float("inf"), 1, 1)]
    for bands in range(1, min(groups, wanted) + 1):
        for block_groups in range(1, min(blocks, wanted // bands) + 1):
            chunks = bands * block_groups * batch
            # the slowest of two threads, with the largest chunk of each kind
            largest = ceil_div(groups, bands) / groups * ceil_div(blocks, block_groups) / blocks * cycles / batch
            slowest = ceil_div(chunks, 2) * largest
            repeated = copy_bytes * block_groups / 12 + weight_bytes * bands / 24
            found.append(
                (
                    slowest + repeated - 0.01 * cycles * chunks / MAX_CHUNKS,
                    bands,
                    block_groups,
                )
            )
    _, bands, block_groups = min(found)
    return bands, block_groups


def plan_conv2d(spec: Conv2dSpec, lanes: int, registers: int) -> Conv2dPlan:
    """Returns the plan for vectors of `lanes` int32 accumulators in `registers` registers."""
    reduction = reduction_of(spec)
    copies = any(spec.padding) or spec.in_dtype == "int8" or reduction.run < DOT_BYTES
    needed = ceil_div(spec.out_channels, lanes)

    def split(vectors: int) -> tuple[int, int]:
        """Full blocks, and vectors of the smaller or partly filled block after them."""
        blocks = spec.out_channels // (vectors * lanes)
        return blocks, needed - blocks * vectors

    pointwise = spec.kernel_h == spec.kernel_w == 1 and spec.stride == (1, 1)
    found: list[tuple[float, int, int, int, Tiling]] = []
    for vectors in range(1, min(needed, MAX_VECTORS) + 1):
        # all accumulators, one row of weights and one broadcast activation are live together
        max_pixels = (registers - 1 - vectors) // vectors
        options = [(spec.batch, tiling) for tiling in tilings(spec.out_h, spec.out_w, max_pixels)]
        if pointwise and not copies:
            # without padding and stride the pixels of all images are one sequence
            options += [(1, tiling) for tiling in flat_tilings(spec.batch * spec.out_h * spec.out_w, max_pixels)]
        blocks, rest = split(vectors)
        for batch, tiling in options:
            cycles = batch * sum(
                count
                * (
                    blocks * tile_cycles(pixels, vectors, reduction.dots)
                    + (tile_cycles(pixels, rest, reduction.dots) if rest else 0)
                )
                for pixels, count in tiling.shapes
            )
            kinds = len(tiling.shapes) * (2 if rest else 1)
            found.append((cycles * (1 + 0.005 * kinds), kinds, vectors, batch, tiling))
    _, _, vectors, batch, tiling = min(found, key=lambda entry: entry[:4])
    blocks, rest = split(vectors)
    used_w = (spec.out_w - 1) * spec.stride[1] + spec.span_w
    used_h = (spec.out_h - 1) * spec.stride[0] + spec.span_h
    row_pitch = used_w * spec.in_channels if copies else spec.in_w * spec.in_channels
    bands, block_groups = choose_chunks(
        macs=spec.macs,
        batch=batch,
        groups=tiling.groups,
        blocks=blocks,
        weight_bytes=needed * lanes * reduction.dots * DOT_BYTES,
        copy_bytes=used_h * row_pitch if copies else 0,
    )
    return Conv2dPlan(
        reduction,
        batch,
        tiling,
        vectors,
        blocks,
        rest,
        copies,
        bands,
        block_groups,
        row_pitch,
    )
