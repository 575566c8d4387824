"""TIR functions over tensors whose extents may be variables, as Relax calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, relax, tirx
from qtorch_relay.dimensions import is_fixed

OPAQUE = 8  # TVM's kOpaque operator pattern: no pass fuses into such a function

Body = Callable[..., None]


def call_function(builder: Any, name: str, operands: Sequence[Any], out_type: Any, body: Body) -> Any:
    """Adds a TIR function to the module and returns the call of it.

    body(*buffers, out) emits its code; an extent of a buffer that is no number is a variable of the function, the same
    one wherever operands and the output have the same extent.
    """
    types = [operand.ty for operand in operands] + [out_type]
    function = _build(name, [(list(found.shape.values), str(found.dtype)) for found in types], body)
    return relax.call_tir(builder.add_func(function, name), list(operands), out_type)


def _build(name: str, types: list[tuple[list[Any], str]], body: Body) -> PrimFunc:
    variables: dict[str, Any] = {}

    def extent(size: Any) -> Any:
        if is_fixed(size):
            return int(size)
        return variables.setdefault(str(size), tirx.Var(f"n{len(variables)}", "int64"))

    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True, "op_pattern": OPAQUE})
        names = [*(f"x{i}" for i in range(len(types) - 1)), "out"]
        handles = [T.arg(argument, T.handle()) for argument in names]
        buffers = [
            T.match_buffer(handle, [extent(size) for size in shape], dtype)
            for handle, (shape, dtype) in zip(handles, types, strict=True)
        ]
        body(*buffers)
    return builder.get()


def flat(buffer: Any) -> Any:
    """Returns a one-dimensional view of a buffer."""
    return T.decl_buffer((product(buffer.shape),), buffer.dtype, data=buffer.data)


def product(extents: Sequence[Any]) -> Any:
    """Returns the product of extents, 1 of none; a number if all are."""
    total: Any = 1
    for size in extents:
        total = total * (int(size) if is_fixed(size) else size)
    return total


def variable(dtype: str = "float32", lanes: int = 1) -> Any:
    """Allocates numbers that LLVM keeps in registers."""
    return T.alloc_buffer((lanes,), dtype, scope="global")


LANES = 16
"""Elements of a vector that is written as such: LLVM makes what the target has of it."""


def for_each(count: Any, emit: Callable[[Any], None]) -> None:
    """Emits emit(i) for so many indices, in vectors and one by one for the rest.

    LLVM does not make vectors of loops with the fence of tir.math.rounded by itself.
    """
    with T.serial(0, count // LANES) as block, T.vectorized(0, LANES) as lane:
        emit(block * LANES + lane)
    with T.serial(count // LANES * LANES, count) as i:
        emit(i)


def fold_lanes(lanes: Any, combine: Callable[[Any, Any], Any]) -> None:
    """Emits what leaves in the first of LANES numbers all of them combined, halves with halves."""
    width = LANES
    while width > 1:
        width //= 2
        with T.vectorized(0, width) as lane:
            T.buffer_store(lanes, combine(lanes[lane], lanes[width + lane]), [lane])


PARALLEL_SIZE = 16384
"""Elements from which on threads share the work: waking one takes as long as a few thousand elements."""


def loop_of(size: Any) -> Any:
    """Returns the loop for work on so many elements: parallel if it pays, or if the number is not known."""
    return T.serial if isinstance(size, int) and size < PARALLEL_SIZE else T.parallel
