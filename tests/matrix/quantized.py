"""What rows of ops on quantized tensors are made of: dtypes, layouts, and modules that quantize and apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.matrix.case import ENGINES, Apply, Case, uniform

SCALE = 0.031
# the zero points at both ends, and one between
DTYPES = {"u8": (torch.quint8, 93), "s8": (torch.qint8, -7)}
ENDS = {"u8-z0": (torch.quint8, 0), "u8-z255": (torch.quint8, 255), "s8-z-128": (torch.qint8, -128)}
# codes of 32 bits, whose scale is taken small
WIDE = {"s32": (torch.qint32, -70000)}
FLOAT_ENGINES = ("fbgemm", "onednn", "x86")
# For ops whose code never asks for the engine: the portable program of fbgemm and the optimized one of x86 are all.
_NO_ENGINE = "the op has one kernel for all engines, so the program is fbgemm's"
_NOT_QNNPACK = "the op asks only whether the engine is qnnpack, so the program is fbgemm's"
TWO_KERNELS: dict[str, Any] = {
    "engines": ("fbgemm", "qnnpack"),
    "left_out": dict.fromkeys(("onednn", "x86"), _NOT_QNNPACK),
}
ONE_KERNEL: dict[str, Any] = {
    "engines": ("fbgemm", "x86"),
    "left_out": dict.fromkeys(("onednn", "qnnpack"), _NO_ENGINE),
}

Function = Callable[..., Any]


def quantize(
    x: torch.Tensor, dtype: torch.dtype, zero_point: int, *, channels_last: bool = False, scale: float = SCALE
) -> torch.Tensor:
    """Returns x quantized, in channels-last memory if asked for."""
    codes = torch.quantize_per_tensor(x, scale, zero_point, dtype)
    if not channels_last:
        return codes
    return codes.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def row(
    op: str,
    variant: str,
    function: Function,
    *shapes: tuple[int, ...] | npt.NDArray[Any],
    dtype: str = "u8",
    channels_last: bool = False,
    engines: tuple[str, ...] = ENGINES,
    left_out: Mapping[str, str] | None = None,
    scale: float = SCALE,
    span: float = 4.0,
) -> Case:
    """Returns a row that applies a function to quantized tensors of these shapes; arrays are passed on as they are.

    span: the inputs lie between -span and span, which with the usual scale reaches past the codes' range.
    """
    torch_dtype, zero_point = (DTYPES | ENDS | WIDE)[dtype]
    inputs = [uniform(shape, i, -span, span) if isinstance(shape, tuple) else shape for i, shape in enumerate(shapes)]
    plain = [not isinstance(shape, tuple) for shape in shapes]

    def apply(*tensors: torch.Tensor) -> Any:
        values = [
            tensor
            if as_is
            else quantize(
                tensor, torch_dtype, zero_point, channels_last=channels_last and tensor.dim() in (4, 5), scale=scale
            )
            for tensor, as_is in zip(tensors, plain, strict=True)
        ]
        return function(*values)

    layout = "-cl" if channels_last else ""
    return Case(
        op, f"{dtype}{layout}-{variant}", lambda: Apply(apply), tuple(inputs), engines=engines, left_out=left_out or {}
    )


def rows(
    op: str, variant: str, function: Function, *shapes: tuple[int, ...] | npt.NDArray[Any], **others: Any
) -> Iterator[Case]:
    """Yields a row for each dtype."""
    for dtype in others.pop("dtypes", DTYPES):
        yield row(op, variant, function, *shapes, dtype=dtype, **others)


def both_layouts(
    op: str, variant: str, function: Function, *shapes: tuple[int, ...] | npt.NDArray[Any], **others: Any
) -> Iterator[Case]:
    """Yields a row for each dtype and layout."""
    for channels_last in (False, True):
        yield from rows(op, variant, function, *shapes, channels_last=channels_last, **others)


def integers(*values: int) -> npt.NDArray[np.int64]:
    """Returns indices."""
    return np.asarray(values, np.int64)


def crossed(
    op: str, variant: str, function: Function, *shapes: tuple[int, ...] | npt.NDArray[Any], turn: int, **others: Any
) -> Iterator[Case]:
    """Yields two of the four rows of both_layouts, each dtype and each layout once; turn says which two.

    Of quint8 the engine qnnpack has kernels of its own, of qint8 none.
    """
    for dtype, channels_last in (("u8", turn % 2 == 0), ("s8", turn % 2 == 1)):
        # onednn's and x86's programs are fbgemm's; the optimized one of x86 is slow to compile
        unlike = ["onednn", *(["x86"] if turn % 3 else []), *(["qnnpack"] if dtype == "s8" else [])]
        engines = {
            "engines": tuple(engine for engine in ENGINES if engine not in unlike),
            "left_out": dict.fromkeys(unlike, _NOT_QNNPACK),
        }
        yield row(op, variant, function, *shapes, dtype=dtype, channels_last=channels_last, **(engines | others))
