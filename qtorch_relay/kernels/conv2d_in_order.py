"""The loop nest of convolutions and dense layers for processors that issue instructions in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtorch_relay._tvm import T
from qtorch_relay.kernels.conv2d_nest import Accumulators, Conv2dNest
from qtorch_relay.kernels.conv2d_plan import DOT_BYTES
from qtorch_relay.kernels.hidden import hidden, hidden_address, hiding, load_hidden
from qtorch_relay.kernels.tir import Buffer, Expr, get, put, registers

TURNS = (32, 16, 8)
"""Dots of an iteration: as many as leave the registers that loads need, and as there are twice in a run."""

LONG_TURN_REGISTERS = 4
"""Registers that the longest iterations must leave, in which LLVM moves more loads ahead."""

GROUP = 4
"""Dots whose weights are read from one address."""


AT_ONCE = 2
"""Dots whose activations are read at once: in-order processors load 64 bits beside a product, but not 128."""

CODES, ROW = "int32x2", "int8x16"
"""What is read of a pixel's activations, and the weights of a vector."""

_KEPT_CODES, _KEPT_ROW = "uint32x2", "int32x4"


class InOrderNest(Conv2dNest):
    """Emits the same loops in the order in which processors are to run them: what a dot needs is loaded among the
    products of the one before, from an address and an offset in registers, which take no instruction for each pixel.

    LLVM would rather count one address for every pixel, and load just before it multiplies.
    """

    def emit(self) -> None:
        """Emits images x bands x parts of the channels as one loop."""
        with hiding():
            super().emit()

    def _run(
        self,
        accumulators: Accumulators,
        source: Buffer,
        run: Expr,
        offsets: Sequence[int],
        run_weights: Expr,
        dot_weights: int,
        count: int,
        before: Callable[[Expr], None],
    ) -> None:
        """Adds `count` dots next to each other, in this order those that fill iterations."""
        turn = self._turn(accumulators, count)
        if turn is not None:
            self._turns(accumulators, source, run, offsets, run_weights, count // turn, turn)
            done = count // turn * turn
            run, run_weights, count = run + done * DOT_BYTES, run_weights + done * dot_weights, count - done
        super()._run(accumulators, source, run, offsets, run_weights, dot_weights, count, before)

    def _turn(self, accumulators: Accumulators, count: int) -> int | None:
        """Returns the dots of an iteration, or None for runs that are not worth a loop."""
        pixels, vectors = len(accumulators), len(accumulators[0])
        left = self.isa.REGISTERS - pixels * vectors - pixels - 2 * vectors
        turns = TURNS if left >= LONG_TURN_REGISTERS else TURNS[1:]
        return next((turn for turn in turns if count >= 2 * turn), None)

    def _turns(
        self,
        accumulators: Accumulators,
        source: Buffer,
        run: Expr,
        offsets: Sequence[int],
        run_weights: Expr,
        turns: int,
        size: int,
    ) -> None:
        """Adds the dots of `turns` iterations of `size` dots; the last iteration loads what the first one did."""
        dot, pixels, vectors = self._dot, len(accumulators), len(accumulators[0])
        vector_bytes = self.isa.LANES * DOT_BYTES
        places = [hidden(offset) for offset in offsets]
        weight_places = [hidden(index * vector_bytes) for index in range(GROUP * vectors)]

        def activations(step: Expr) -> Expr:
            return hidden_address(source, run + step * DOT_BYTES)

        def weights(step: Expr) -> Expr:
            return hidden_address(self.weight, run_weights + step * (vectors * vector_bytes))

        def read(address: Expr, pixel: int) -> Expr:
            return load_hidden(address, places[pixel], CODES)

        def read_weights(address: Expr, step: int, j: int) -> Expr:
            return load_hidden(address, weight_places[step % GROUP * vectors + j], ROW)

        # those of 128 bits are of one type, that of the sums: TVM keeps one variable where another was
        codes_kept = registers(len(offsets), _KEPT_CODES)
        rows_kept = registers(vectors, _KEPT_ROW)
        first_codes, first_weights = activations(T.int32(0)), weights(T.int32(0))
        for pixel, kept in enumerate(codes_kept):
            put(kept, T.reinterpret(_KEPT_CODES, read(first_codes, pixel)))
        for j, kept in enumerate(rows_kept):
            put(kept, T.reinterpret(_KEPT_ROW, read_weights(first_weights, 0, j)))
        # LLVM makes the iterations no longer than they are here
        with T.serial(0, T.Cast("int32", hidden(turns))) as turn:
            codes = [T.reinterpret(CODES, get(kept)) for kept in codes_kept]
            rows = [T.reinterpret(ROW, get(kept)) for kept in rows_kept]
            first = turn * size
            following = T.bind(T.Select(turn + 1 < turns, first + size, T.int32(0)))
            code_address, row_address = first_codes, weights(first)
            for index in range(size):
                after = index + 1
                step = following if after == size else first + after
                if after % GROUP == 0:
                    row_address = weights(step)
                if after % AT_ONCE == 0:
                    code_address = activations(step)
                next_rows = list(rows)
                for pixel, accumulator in enumerate(accumulators):
                    spread = dot.spread(codes[pixel], index % AT_ONCE, AT_ONCE)
                    for j in range(vectors):
                        put(accumulator[j], dot.add(get(accumulator[j]), spread, rows[j]))
                        row, product = divmod(pixel * vectors + j, pixels)
                        # evenly among the products, one row among as many as there are pixels
                        if product == pixels // 2:
                            next_rows[row] = read_weights(row_address, after, row)
                    if after % AT_ONCE == 0:
                        codes[pixel] = read(code_address, pixel)
                rows = next_rows
            for kept, value in zip(codes_kept, codes, strict=True):
                put(kept, T.reinterpret(_KEPT_CODES, value))
            for kept, value in zip(rows_kept, rows, strict=True):
                put(kept, T.reinterpret(_KEPT_ROW, value))
