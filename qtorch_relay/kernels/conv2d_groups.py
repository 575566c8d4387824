"""The loop nest of convolutions whose groups have 4 or 8 channels: lanes multiply what their own group reads.

Sixteen activations, of four or two groups, lie in each quarter of a register; lane p of a quarter holds four of them,
of the group p // dots. Its weights are of that group, so none is a zero between groups. Groups of 8 channels take two
products for an output, in lanes next to each other, whose sums are added in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qtorch_relay._tvm import T
from qtorch_relay.kernels.conv2d_nest import Accumulators, Block, Conv2dNest
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES, SMALL_GROUPS_CHANNELS, SmallGroupsReduction
from qtorch_relay.kernels.isa import Dot
from qtorch_relay.kernels.spec import Conv2dSpec
from qtorch_relay.kernels.tir import Buffer, Expr, get, load, put, registers, splat, vector

QUARTERS = 4
"""Quarters of a register of 16 lanes."""


class SmallGroupsNest(Conv2dNest):
    """Emits the same loops, with as many accumulators for the vector of a pixel's sums as an output has dots."""

    @property
    def _dots_of_output(self) -> int:
        assert isinstance(self.plan.reduction, SmallGroupsReduction)
        return self.plan.reduction.dots_of_run

    @property
    def _at_once(self) -> int:
        return self._dots_of_output

    def _accumulators(self, block: Block, pixels: int) -> Accumulators:
        """Returns the accumulators of a tile, [pixel][dot], the first lanes of each output with what it begins with."""
        lanes, dots = self.isa.LANES, self._dots_of_output
        start, zeros = T.bind(self.start(block.lane)), splat(T.int32(0), lanes)
        source = np.full(dots * lanes, lanes)  # of zeros
        source[lanes_of_outputs(dots)[:, 0]] = np.arange(lanes)
        starts = [
            T.bind(T.Shuffle([start, zeros], [T.int32(int(lane)) for lane in part])) for part in np.split(source, dots)
        ]
        accumulators = [registers(dots, vector("int32", lanes)) for _ in range(pixels)]
        for accumulator in accumulators:
            for variable, value in zip(accumulator, starts, strict=True):
                put(variable, value)
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
        """Adds the dots of a run, each with its own accumulators, of the activations at run + offsets."""
        dot, lanes = self._dot, self.isa.LANES
        weights = [T.bind(dot.weights(self.weight, run_weights + i * lanes * DOT_BYTES, 0)) for i in range(count)]
        for offset, accumulator in zip(offsets, accumulators, strict=True):
            quarter = load(source, run + offset, SMALL_GROUPS_CHANNELS)
            repeated = T.Shuffle([quarter] * QUARTERS, [T.int32(i) for i in range(QUARTERS * SMALL_GROUPS_CHANNELS)])
            codes = T.bind(dot.activations(repeated, 0))
            for variable, row in zip(accumulator, weights, strict=True):
                put(variable, dot.add(get(variable), codes, row))

    def _sums(self, accumulators: Accumulators) -> list[list[Expr]]:
        """Returns the sums of every pixel, [pixel][1]: of each output the lanes of its dots added up."""
        places = lanes_of_outputs(self._dots_of_output)
        sums = []
        for accumulator in accumulators:
            values = [get(variable) for variable in accumulator]
            parts = [T.Shuffle(values, [T.int32(int(lane)) for lane in lanes]) for lanes in places.T]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            sums.append([T.bind(total)])
        return sums


def lanes_of_outputs(dots: int) -> npt.NDArray[np.int64]:
    """Returns where the sums of each output of 16 channels are, [16, dots]: lanes of `dots` accumulators in a row.

    Output i of its group lies in quarter i % 4 of accumulator i // 4, in the lanes of the group.
    """
    group, output = np.divmod(np.arange(SMALL_GROUPS_CHANNELS), QUARTERS * dots)
    first = output // QUARTERS * SMALL_GROUPS_CHANNELS + output % QUARTERS * QUARTERS + group * dots
    return first[:, None] + np.arange(dots)


def pack_small_groups(spec: Conv2dSpec, dot: Dot, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Returns OIHW weights as [16 channels][tap][dot][lane][4], each lane with weights of its own group, flat."""
    dots = weight.shape[1] // DOT_BYTES
    taps = spec.kernel_h * spec.kernel_w
    by_tap = weight.transpose(0, 2, 3, 1).reshape(-1, SMALL_GROUPS_CHANNELS, taps, dots, DOT_BYTES)
    packed = np.empty((len(by_tap), taps, dots * SMALL_GROUPS_CHANNELS, DOT_BYTES), np.int8)
    packed[:, :, lanes_of_outputs(dots)] = by_tap.transpose(0, 2, 1, 3, 4)
    return dot.arrange_for_registers(packed.reshape(-1, SMALL_GROUPS_CHANNELS, DOT_BYTES))
