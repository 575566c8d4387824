"""Addresses that LLVM sees nothing of, so that it makes no others of them: sums of two registers stay sums of two.

A value goes through a piece of assembly without code. What is read at such an address has no type for LLVM's alias
analysis: TVM would give it one, and then reads of a copy could move before the copying.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qtorch_relay._tvm import T
from qtorch_relay.kernels.tir import Buffer, Expr

_PREFIX = "qtorch_relay_hidden"
_ELEMENTS = {"int8": "i8", "int32": "i32"}
_LOADED = (("int32", 2), ("int8", 16))


def _hide(kind: str) -> str:
    """Returns a function in LLVM's language that returns what it is given."""
    attributes = "nounwind willreturn memory(none)"
    return f"""define linkonce_odr {kind} @{_PREFIX}_{kind}({kind} %value) alwaysinline {attributes} {{
  %same = call {kind} asm "", "=r,0"({kind} %value) {attributes}
  ret {kind} %same
}}"""


def _load(dtype: str, lanes: int) -> str:
    """Returns a function in LLVM's language that reads at an address plus an offset in bytes."""
    kind = f"<{lanes} x {_ELEMENTS[dtype]}>"
    return f"""define linkonce_odr {kind} @{_PREFIX}_{dtype}x{lanes}(ptr %address, i64 %offset) alwaysinline nounwind {{
  %place = getelementptr i8, ptr %address, i64 %offset
  %value = load {kind}, ptr %place, align 1
  ret {kind} %value
}}"""


_FUNCTIONS = "\n".join([_hide("ptr"), _hide("i64"), *(_load(*loaded) for loaded in _LOADED)])


@contextmanager
def hiding() -> Iterator[None]:
    """Lets the statements of the block call the functions below."""
    with T.attr(T.int32(0), "pragma_import_llvm", _FUNCTIONS):
        yield


def hidden(number: int) -> Expr:
    """Returns an int64 of which LLVM knows no more than that it is in a register."""
    return T.bind(T.call_extern("int64", f"{_PREFIX}_i64", T.int64(number)))


def hidden_address(buffer: Buffer, start: Expr) -> Expr:
    """Returns the address of an element, of which LLVM knows no more than that it is in a register."""
    address = T.address_of(buffer[start])
    return T.bind(T.call_extern(address.ty, f"{_PREFIX}_ptr", address))


def load_hidden(address: Expr, offset: Expr, dtype: str) -> Expr:
    """Returns the "int32x2" or "int8x16" at an address plus an offset in bytes; both may be hidden."""
    return T.bind(T.call_extern(dtype, f"{_PREFIX}_{dtype}", address, offset))
