"""Small helpers over TVM's IRBuilder: a PrimFunc with flat views of its buffers, ramps, intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from qtorch_relay._tvm import IRBuilder, PrimFunc, T, tvm
from qtorch_relay.tir.math import fma as fma
from qtorch_relay.tir.math import intrinsic as intrinsic
from qtorch_relay.tir.math import rounded as rounded
from qtorch_relay.tir.math import rounded_product as rounded_product

Expr: TypeAlias = Any
Buffer: TypeAlias = Any
BufferDecl: TypeAlias = tuple[str, tuple[int, ...], str]


# The number of inputs of the kernels that are built for any number of samples; None: kernels are built for one.
_repeated_inputs: ContextVar[int | None] = ContextVar("repeated_inputs", default=None)


@contextmanager
def for_each_sample(inputs: int) -> Iterator[None]:
    """Makes the kernels built within the block take any number of samples, one after the other.

    inputs: how many of a kernel's arguments come before its constants. They and the output get a first dimension of
    any size, of which the kernel's own is one sample.
    """
    token = _repeated_inputs.set(inputs)
    try:
        yield
    finally:
        _repeated_inputs.reset(token)


def prim_func(name: str, arguments: Sequence[BufferDecl], body: Callable[..., None]) -> PrimFunc:
    """Returns a PrimFunc over buffers (name, shape, dtype); body gets a flat one-dimensional view of each, in order.

    The arguments never overlap (tirx.noalias): a kernel's output is never one of its inputs.
    """
    inputs = _repeated_inputs.get()
    if inputs is not None:
        return _repeated(name, arguments, body, inputs)
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True})
        handles = [T.arg(argument, T.handle()) for argument, _, _ in arguments]
        buffers = [
            T.match_buffer(handle, shape, dtype) for handle, (_, shape, dtype) in zip(handles, arguments, strict=True)
        ]
        views = [
            T.decl_buffer((int(np.prod(shape)),), dtype, data=buffer.data)
            for buffer, (_, shape, dtype) in zip(buffers, arguments, strict=True)
        ]
        body(*views)
    return builder.get()


def _repeated(name: str, arguments: Sequence[BufferDecl], body: Callable[..., None], inputs: int) -> PrimFunc:
    """Returns what prim_func returns, in a loop over the samples: views begin where the sample does."""
    sampled = [index < inputs or index == len(arguments) - 1 for index in range(len(arguments))]
    # a first dimension of several rows a sample is a variable too: TVM binds variables, not expressions
    firsts = {shape[0] for (_, shape, _), has_samples in zip(arguments, sampled, strict=True) if has_samples}
    lengths = {first: tvm.tirx.Var("samples" if first == 1 else f"samples_by_{first}", "int64") for first in firsts}
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"tirx.noalias": True})
        handles = [T.arg(argument, T.handle()) for argument, _, _ in arguments]
        buffers = [
            T.match_buffer(handle, (lengths[shape[0]], *shape[1:]) if has_samples else shape, dtype)
            for handle, (_, shape, dtype), has_samples in zip(handles, arguments, sampled, strict=True)
        ]
        first = min(lengths)
        with T.serial(0, lengths[first] if first == 1 else tvm.tirx.floordiv(lengths[first], first)) as sample:
            views = []
            for buffer, (_, shape, dtype), has_samples in zip(buffers, arguments, sampled, strict=True):
                size = int(np.prod(shape))
                start = sample * size if has_samples else None
                views.append(T.decl_buffer((size,), dtype, data=buffer.data, elem_offset=start))
            body(*views)
    return builder.get()


def vector(dtype: str, lanes: int) -> str:
    """Returns the dtype of a vector, for example "int32x16", or of a scalar."""
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def span(start: Expr, lanes: int) -> Expr:
    """Returns the index of `lanes` consecutive elements, or of one."""
    return T.ramp(start, 1, lanes) if lanes > 1 else start


def load(buffer: Buffer, start: Expr, lanes: int) -> Expr:
    """Returns `lanes` consecutive elements."""
    return buffer[span(start, lanes)]


def store(buffer: Buffer, value: Expr, start: Expr, lanes: int) -> None:
    """Writes `lanes` consecutive elements."""
    T.buffer_store(buffer, value, [span(start, lanes)])


def splat(value: Expr, lanes: int) -> Expr:
    """Returns a scalar in every lane."""
    return T.broadcast(value, lanes) if lanes > 1 else value


def lanes_of(value: Expr) -> int:
    """Returns the number of lanes of a value, 1 for a scalar."""
    _, _, lanes = str(value.ty.dtype).partition("x")
    return int(lanes or 1)


def as_u8(codes: Expr) -> Expr:
    """Returns u8 or s8 codes as u8; s8 codes are moved up by 128, as their zero point is."""
    if str(codes.ty.dtype).startswith("uint8"):
        return codes
    lanes = lanes_of(codes)
    return T.bitwise_xor(T.reinterpret(vector("uint8", lanes), codes), splat(T.uint8(128), lanes))


def as_source(codes_u8: Expr, dtype: str) -> Expr:
    """Returns u8 codes as dot products read them: as int8 they are moved down by 128, as uint16 widened."""
    lanes = lanes_of(codes_u8)
    if dtype == "int8":
        return T.reinterpret(vector(dtype, lanes), T.bitwise_xor(codes_u8, splat(T.uint8(128), lanes)))
    return codes_u8 if dtype == "uint8" else T.Cast(vector(dtype, lanes), codes_u8)


def pick(value: Expr, lanes: Sequence[int]) -> Expr:
    """Returns the lanes with these numbers of a vector, as a vector."""
    return T.Shuffle([value], [T.int32(lane) for lane in lanes])


def prefetch(buffer: Buffer, index: Expr) -> None:
    """Asks for the cache line of an element in the second-level cache; the index may lie past the end."""
    read, second_level, data = T.int32(0), T.int32(2), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(buffer[index]), read, second_level, data))


def scratch(size: int, dtype: str) -> Buffer:
    """Allocates uninitialized memory for the innermost parallel iteration."""
    return T.alloc_buffer((size,), dtype, scope="global")


def registers(count: int, dtype: str) -> list[Buffer]:
    """Allocates variables to be kept in registers, one buffer each.

    TVM puts only allocations of scope "global" under 1024 bytes on the stack, where LLVM turns them into registers;
    others are calls to its memory pool, and LLVM may have to keep the memory up to date.
    """
    return [T.alloc_buffer((1,), dtype, scope="global") for _ in range(count)]


def get(variable: Buffer) -> Expr:
    """Returns the value of a register variable."""
    return variable[0]


def put(variable: Buffer, value: Expr) -> None:
    """Sets a register variable."""
    T.buffer_store(variable, value, [0])
