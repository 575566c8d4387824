"""What the kernels ask of an instruction set: vectors of int32 lanes, dot products, rounding, packing, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from qtorch_relay.kernels.spec import CodeDtype, PairSums
from qtorch_relay.kernels.tir import Buffer, Expr

DOT = 4
"""Products one lane of a dot product adds."""


class Dot(Protocol):
    """How four products of u8 activations and s8 weights are added to each int32 lane, exactly.

    It takes STEPS steps, each with its part of the activations and of the weights; the sum of a lane's parts is what
    counts, so the steps may be far apart. form: how, in words for reports.
    AT_ONCE: most dots next to each other whose activations one read takes.
    EXTRA_REGISTERS: live in a loop of dots beside the accumulators, a row of weights and what is read of activations.
    CYCLES, WEIGHT_CYCLES, SPREAD_CYCLES: what the products take, and what is made of a vector of weights and of
    activations before, see DotUnit.
    SOURCE: how u8 activations are read: as int8 they are moved down by 128, as uint16 widened.
    """

    form: str
    STEPS: int
    AT_ONCE: int
    EXTRA_REGISTERS: int
    CYCLES: float
    WEIGHT_CYCLES: float
    SPREAD_CYCLES: float
    SOURCE: Literal["uint8", "uint16", "int8"]

    def weights(self, packed: Buffer, address: Expr, step: int) -> Expr:
        """Returns a step's part of the 4 * LANES arranged weights at an address."""

    def read(self, source: Buffer, index: Expr, step: int, count: int) -> Expr:
        """Returns a step's part of the 4 * count consecutive activations of a buffer of SOURCE that `count` dots take.

        count: a power of two, at most AT_ONCE.
        """

    def spread(self, read: Expr, index: int, count: int) -> Expr:
        """Returns what was read for one of `count` dots, in every lane."""

    def activations(self, codes: Expr, step: int) -> Expr:
        """Returns a step's part of 4 * LANES activations in a register; codes are u8, or s8 where SOURCE is int8."""

    def add(self, accumulator: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the accumulator plus the products of a step's parts; wraps, never saturates."""

    def arrange(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns weights [..., LANES, 4] as `weights` reads them for activations that are spread, flat."""

    def arrange_for_registers(self, weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Returns weights [..., LANES, 4] as `weights` reads them for activations in a register, flat."""


class TileRegisters(Protocol):
    """Registers of 16 rows of 64 bytes: sums of 16 pixels times 16 channels, and what is multiplied for them.

    Tiles 0 to 3 hold sums (int32), 4 and 5 activations (u8), 6 and 7 weights (s8).
    """

    def begin(self) -> None:
        """Configures the registers; the statements until `end` may use them."""

    def end(self) -> None:
        """Gives them up."""

    def load(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        """Reads 16 rows of 64 bytes, which begin `stride` elements apart."""

    def dot(self, sums: int, activations: int, weights: int) -> None:
        """Adds to each sum 16 dots: sums[m][n] += sum over k < 64 of activations[m][k] * weights[k // 4][4 n + k % 4],
        wrapping.
        """

    def store(self, tile: int, buffer: Buffer, index: Expr, stride: int) -> None:
        """Writes 16 rows of 64 bytes, which begin `stride` elements apart."""


class PairedPixels(Protocol):
    """Products of registers that hold eight activations of two pixels with those that hold as many weights of two
    channels: one adds eight products to the four sums of [pixel][channel].

    form: how, in words for reports. CYCLES: of a dot of four products for a pixel and LANES channels.
    SPREAD_CYCLES: what is made of a pixel's activations for a dot.
    """

    form: str
    CYCLES: float
    SPREAD_CYCLES: float

    def add(self, sums: Expr, activations: Expr, weights: Expr) -> Expr:
        """Returns the sums plus the products of u8 activations [2, 8] and s8 weights [2, 8]; wraps, never saturates."""


class Isa(Protocol):
    """An instruction set; vectors are LANES int32, LANES float32 or 4 * LANES codes.

    NAME: of the kernels, as targets name them. REGISTERS: vectors held at once. dots: the fastest dot product that is
    exact, for each bound of the sums of two products. pairs: what is faster for two pixels, where there is.
    """

    NAME: str
    LANES: int
    REGISTERS: int
    dots: Mapping[PairSums, Dot]
    pairs: PairedPixels | None = None

    @property
    def tiles(self) -> TileRegisters | None:
        """Registers of two dimensions that compute convolutions and dense layers, or None."""

    @property
    def requantizes_among_dots(self) -> bool:
        """Whether a tile may be requantized among the dots of the next one: there are registers for it, and processors
        look so far ahead that it gains.
        """

    @property
    def multiplies_memory(self) -> bool:
        """Whether an operand of a product may lie in memory, instead of being loaded before."""

    @property
    def places_loads(self) -> bool:
        """Whether loads must be among the products before those that need them: processors issue in order."""

    @property
    def prefetches(self) -> bool:
        """Whether the next weights are to be fetched before they are used."""

    @property
    def distinguishes_pair_sums(self) -> bool:
        """Whether dot_for returns another dot product where sums of two products stay in int16."""
        return self.dots["s16"] != self.dots["s32"]

    def dot_for(self, pair_sums: PairSums) -> Dot:
        """Returns the dot product for sums of two products of these bounds."""
        return self.dots[pair_sums]

    def dot_saturating_pairs(self, accumulator: Expr, u8: Expr, s8: Expr) -> Expr:
        """Returns accumulator + sat16(u8[0] * s8[0] + u8[1] * s8[1]) + sat16(u8[2] * s8[2] + u8[3] * s8[3])."""

    def round_to_s32(self, value: Expr) -> Expr:
        """Returns float32 rounded half to even; |value| < 2^31."""

    def channel_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel within a block that each lane of its vectors holds, [vectors, LANES], such that
        store_codes packs them best.
        """

    def interleave(self, rows: Sequence[Expr]) -> list[Expr]:
        """Returns four byte vectors of LANES, 2 * LANES or 4 * LANES channels interleaved, 4 bytes to a channel.

        The parts, stored one after the other, fill one register for every LANES channels, in interleaved_order.
        """

    def interleaved_order(self, vectors: int) -> npt.NDArray[np.int64]:
        """Returns the channel each lane holds after interleave, [vectors, LANES]."""

    def store_codes(
        self,
        values: Sequence[Sequence[Expr]],
        out: Buffer,
        addresses: Sequence[Expr],
        channels: int,
        dtype: CodeDtype,
        zero_point: Expr | None,
        clamp: tuple[Expr, Expr],
        order: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Writes the codes of a tile: clamp(values[pixel][vector] + zero_point) to out[addresses[pixel] + channel].

        values: rounded int32, in channel_order unless another order is given, in which four lanes at a time hold four
        consecutive channels. zero_point: int16 scalar, or None if already added. clamp: lowest and highest code,
        scalars of dtype. channels: how many channels of the block exist.
        """

    def lookup(self, table: Buffer, indices: Expr) -> Expr:
        """Returns the bytes of a 256-byte table at 4 * LANES indices."""
