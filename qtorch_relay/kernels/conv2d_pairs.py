"""The loop nest of convolutions and dense layers where a product takes two pixels and two channels at once."""

from __future__ import annotations

from collections.abc import Sequence

from qtorch_relay._tvm import T
from qtorch_relay.kernels.conv2d_nest import Accumulators, Block, Conv2dNest
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES
from qtorch_relay.kernels.isa import PairedPixels
from qtorch_relay.kernels.tir import Buffer, Expr, get, lanes_of, load, put, registers, vector

CODES = 2 * DOT_BYTES
"""Activations of a pixel, and weights of a channel, in a product."""


class PairNest(Conv2dNest):
    """Emits the same loops with the sums of two pixels in common registers, [pixel][channel] of two of each.

    Of an odd number of pixels the last is computed twice.
    """

    @property
    def _pairs(self) -> PairedPixels:
        assert self.isa.pairs is not None
        return self.isa.pairs

    def _accumulators(self, block: Block, pixels: int) -> Accumulators:
        """Returns the accumulators of a tile, [two pixels][two channels], with what they begin with."""
        lanes = self.isa.LANES
        accumulators = [registers(2 * block.vectors, vector("int32", lanes)) for _ in range((pixels + 1) // 2)]
        for j in range(block.vectors):
            start = T.bind(self.start(block.lane + j * lanes))
            for half in (0, 1):
                both = T.bind(halves(start, start, half))
                for accumulator in accumulators:
                    put(accumulator[2 * j + half], both)
        return accumulators

    def _dots(
        self,
        accumulators: Accumulators,
        source: Buffer,
        run: Expr,
        offsets: Sequence[int],
        run_weights: Expr,
        count: int = 1,
    ) -> None:
        """Adds `count` dots next to each other, two at a time, of the activations at run + offsets."""
        pairs, channels = self._pairs, len(accumulators[0])
        read = [T.bind(load(source, run + offset, count * DOT_BYTES)) for offset in offsets]
        for index in range(count // 2):
            activations = [
                T.bind(_eight_of_each(read[first], read[min(first + 1, len(read) - 1)], index))
                for first in range(0, len(read), 2)
            ]
            for j in range(channels):
                weights = T.bind(load(self.weight, run_weights + (index * channels + j) * 2 * CODES, 2 * CODES))
                for accumulator, codes in zip(accumulators, activations, strict=True):
                    put(accumulator[j], pairs.add(get(accumulator[j]), codes, weights))

    def _sums(self, accumulators: Accumulators) -> list[list[Expr]]:
        """Returns the sums of every pixel, [pixel][vector]."""
        return [
            [T.bind(halves(get(accumulator[j]), get(accumulator[j + 1]), pixel)) for j in range(0, len(accumulator), 2)]
            for accumulator in accumulators
            for pixel in (0, 1)
        ]


def halves(first: Expr, second: Expr, half: int) -> Expr:
    """Returns the lower (0) or the upper (1) halves of two vectors of four, one behind the other."""
    return T.Shuffle([first, second], [T.int32(2 * half + lane) for lane in (0, 1, 4, 5)])


def _eight_of_each(first: Expr, second: Expr, index: int) -> Expr:
    """Returns the index-th eight codes of two pixels of which as many were read."""
    size = lanes_of(first)
    return T.Shuffle(
        [first, second],
        [T.int32(pixel * size + index * CODES + code) for pixel in (0, 1) for code in range(CODES)],
    )
