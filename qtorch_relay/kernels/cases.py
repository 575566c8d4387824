"""Specs that test the kernels: tile boundaries, odd sizes, strides, dilation, groups, dtypes, both requantizations."""

from __future__ import annotations

from typing import Any

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec, SumArithmetic
from qtorch_relay.kernels.pointwise_spec import (
    AddSpec,
    ConcatenateSpec,
    DequantizeSpec,
    FixedAddSpec,
    LookupSpec,
    MulSpec,
    Piece,
    QuantizeSpec,
)
from qtorch_relay.kernels.pool_spec import AvgPool2dSpec, MaxPool2dSpec
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec, PairSaturatedDepthwiseSpec, Requantization

CONV2D = (
    # every number of channels around a vector, a block and a dot, on few pixels
    *(Conv2dSpec(1, 3, 5, channels, 58, 1, 1) for channels in (1, 2, 3, 4, 5, 7, 17)),
    *(Conv2dSpec(1, 3, 3, 24, channels, 3, 3, padding=(1, 1, 1, 1)) for channels in (1, 3, 15, 16, 17, 24, 40, 48, 58)),
    *(Conv2dSpec(1, 2, 2, 8, channels, 1, 1, requantize="real") for channels in (80, 116, 130)),
    # every image size around a tile
    *(Conv2dSpec(1, size, size, 8, 32, 3, 3, padding=(1, 1, 1, 1)) for size in range(1, 10)),
    *(Conv2dSpec(1, 1, pixels, 8, 32, 1, 1) for pixels in (6, 13, 14, 15, 28, 29)),
    Conv2dSpec(2, 7, 7, 16, 40, 1, 1),
    # windows: strides, dilation, one-sided padding, more padding than image
    Conv2dSpec(1, 9, 9, 3, 32, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3)),
    # rests of rows gathered into common dots
    Conv2dSpec(2, 13, 11, 3, 64, 7, 7, stride=(2, 2), padding=(3, 3, 3, 3), requantize="real"),
    Conv2dSpec(1, 11, 12, 3, 40, 3, 3, stride=(2, 2)),
    Conv2dSpec(1, 8, 9, 2, 64, 4, 3, padding=(2, 1, 1, 1), dilation=(2, 1)),
    Conv2dSpec(1, 6, 6, 1, 64, 5, 5, padding=(2, 2, 2, 2)),
    Conv2dSpec(1, 30, 30, 3, 64, 3, 3, padding=(1, 1, 1, 1), in_dtype="int8"),
    Conv2dSpec(1, 9, 8, 5, 16, 3, 2, stride=(3, 1), padding=(0, 1, 2, 0)),
    Conv2dSpec(2, 8, 9, 17, 24, 3, 3, stride=(1, 2), padding=(2, 2, 2, 2), dilation=(2, 2)),
    Conv2dSpec(1, 8, 8, 12, 32, 3, 3, dilation=(1, 2)),
    Conv2dSpec(1, 8, 8, 12, 32, 3, 3, dilation=(2, 1), padding=(4, 0, 0, 4)),
    Conv2dSpec(1, 8, 8, 16, 32, 1, 1, stride=(2, 2)),
    Conv2dSpec(1, 1, 1, 8, 16, 3, 3, padding=(3, 4, 5, 2)),
    Conv2dSpec(1, 5, 5, 1, 16, 3, 1, dilation=(1, 1)),
    # groups: smaller than a vector, equal, larger, odd, and a depthwise multiplier
    *(Conv2dSpec(1, 6, 6, 8 * c, 8 * c, 3, 3, padding=(1, 1, 1, 1), groups=8) for c in (2, 8, 16, 32, 40)),
    Conv2dSpec(2, 5, 7, 15, 21, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1), groups=3),
    Conv2dSpec(1, 5, 5, 12, 36, 3, 3, groups=12),
    Conv2dSpec(1, 5, 5, 64, 32, 1, 1, groups=2),
    Conv2dSpec(1, 14, 14, 256, 256, 3, 3, padding=(1, 1, 1, 1), groups=32, requantize="real"),
    # groups of 4 and 8 channels: few pixels and many, windows of one and of many taps, codes of both signs
    *(
        Conv2dSpec(1, size, size, 16, 16, 3, 3, padding=(1, 1, 1, 1), groups=groups)
        for size in (1, 3)
        for groups in (2, 4)
    ),
    *(Conv2dSpec(2, 9, 11, 48, 48, 3, 3, (2, 1), (1, 1, 1, 1), groups=groups) for groups in (6, 12)),
    *(Conv2dSpec(1, 7, 15, 32, 32, 1, 1, groups=groups, requantize="real") for groups in (4, 8)),
    Conv2dSpec(1, 9, 9, 32, 32, 5, 3, padding=(2, 1, 2, 1), groups=4, in_dtype="int8", out_dtype="int8"),
    Conv2dSpec(1, 8, 9, 32, 32, 3, 3, dilation=(1, 2), groups=8),
    # dtypes and requantizations
    *(Conv2dSpec(1, 5, 6, 20, 56, 3, 3, requantize=kind) for kind in ("fused", "real")),
    Conv2dSpec(
        1,
        5,
        6,
        20,
        40,
        3,
        3,
        padding=(1, 1, 1, 1),
        in_dtype="int8",
        out_dtype="int8",
        requantize="real",
    ),
    Conv2dSpec(2, 5, 6, 20, 40, 1, 1, in_dtype="int8", out_dtype="int8"),
    Conv2dSpec(1, 5, 6, 20, 40, 1, 1, in_dtype="uint8", out_dtype="int8", requantize="real"),
    # enough work for several chunks: bands of rows, groups of channel blocks, images
    Conv2dSpec(1, 28, 28, 64, 72, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(1, 7, 7, 256, 264, 3, 3, padding=(1, 1, 1, 1)),
    Conv2dSpec(3, 14, 14, 64, 64, 3, 3, padding=(1, 1, 1, 1), requantize="real"),
    Conv2dSpec(1, 30, 31, 128, 80, 1, 1),
)


CONV2D_ADD = (
    # every number of vectors of a block, tiles that wait among dots and those that do not
    *(Conv2dAddSpec(2, 3, 5, 24, channels, 1, 1) for channels in (16, 32, 48, 64, 80, 96, 112, 192)),
    *(Conv2dAddSpec(1, 9, 9, 64, channels, 1, 1) for channels in (16, 48, 64, 80, 256)),
    *(Conv2dAddSpec(1, 7, 8, 8, 48, 3, 3, requantize=kind) for kind in ("fused", "real")),
    Conv2dAddSpec(1, 14, 14, 40, 64, 1, 1, requantize="real"),
    Conv2dAddSpec(1, 9, 9, 64, 64, 3, 3, (2, 2), (1, 1, 1, 1), in_dtype="int8", out_dtype="int8"),
    Conv2dAddSpec(3, 14, 14, 64, 64, 3, 3, padding=(1, 1, 1, 1)),
)


def _depthwise(batch: int, height: int, width: int, channels: int, kernel: int, **options: Any) -> Conv2dSpec:
    padding = options.pop("padding", (kernel // 2,) * 4)
    return Conv2dSpec(
        batch, height, width, channels, channels, kernel, kernel, padding=padding, groups=channels, **options
    )


DEPTHWISE = (
    *(_depthwise(1, 5, 5, channels, 3) for channels in (2, 3, 5, 15, 16, 17, 24, 32, 40, 58, 64, 72, 116, 130, 196)),
    *(_depthwise(1, size, size, 40, 3) for size in range(1, 10)),
    *(_depthwise(1, size, 9 - size, 24, 3, stride=(2, 2)) for size in range(1, 9)),
    *(_depthwise(1, size, size + 1, 40, 5, stride=(stride, stride)) for size in (3, 7, 8) for stride in (1, 2)),
    _depthwise(2, 6, 8, 130, 3, stride=(2, 1), padding=(0, 1, 1, 0)),
    _depthwise(1, 9, 9, 24, 3, dilation=(2, 2), padding=(2, 2, 2, 2)),
    _depthwise(1, 9, 9, 24, 3, stride=(3, 3), padding=(0, 0, 0, 0)),
    _depthwise(1, 9, 9, 16, 7),
    _depthwise(1, 2, 2, 24, 3, padding=(4, 5, 6, 3)),
    _depthwise(1, 4, 6, 24, 1, padding=(0, 0, 0, 0)),
    Conv2dSpec(1, 6, 6, 24, 24, 3, 1, padding=(1, 0, 1, 0), groups=24),
    Conv2dSpec(1, 6, 6, 24, 24, 1, 5, padding=(0, 2, 0, 2), groups=24),
    *(_depthwise(1, 5, 6, 72, 3, requantize=kind) for kind in ("fused", "real")),
    _depthwise(2, 7, 7, 72, 3, in_dtype="int8", out_dtype="int8", requantize="real"),
    _depthwise(1, 7, 7, 5, 3, in_dtype="int8", out_dtype="int8"),
    _depthwise(1, 56, 56, 144, 3),
)

# around vectors of 8 channels and the tiles of 16 registers
NARROW_CONV2D = (
    *(Conv2dSpec(1, 3, 5, 24, channels, 3, 3, padding=(1, 1, 1, 1)) for channels in (3, 7, 8, 9, 23, 25)),
    *(Conv2dSpec(1, 1, pixels, 12, 24, 1, 1) for pixels in (2, 3, 4, 5, 6, 7, 11, 12, 13)),
    Conv2dSpec(1, 5, 5, 32, 32, 3, 3, padding=(1, 1, 1, 1), groups=4, requantize="real"),
)
# runs of dots that are whole iterations of 8, 16 and 32, with and without more dots after them
LONG_CONV2D = (
    Conv2dSpec(1, 3, 9, 64, 40, 1, 1),
    Conv2dSpec(1, 4, 5, 24, 20, 3, 3, padding=(1, 1, 1, 1), requantize="real"),
    Conv2dSpec(1, 1, 19, 164, 33, 1, 1, in_dtype="int8"),
    Conv2dSpec(1, 7, 7, 90, 16, 3, 3, stride=(2, 2), padding=(0, 1, 1, 0)),
    Conv2dSpec(2, 3, 4, 140, 40, 2, 1, groups=2, dilation=(1, 2), out_dtype="int8"),
)
LONG_DENSE = (DenseSpec(1, 300, 50), DenseSpec(9, 136, 24, in_dtype="int8"), DenseSpec(20, 257, 7))
NARROW_DEPTHWISE = tuple(_depthwise(1, 5, 4, channels, 3) for channels in (7, 8, 9, 23, 25, 33))

_PAIRS: tuple[tuple[int, int, int, int, int, int, Requantization], ...] = (
    *((1, 5, 6, channels, 3, 1, "accumulator") for channels in (8, 16, 24, 40, 64, 72, 120, 136, 200)),
    *((2, size, 9 - size, 24, 3, 2, "accumulator") for size in range(1, 9)),
    (1, 7, 7, 40, 5, 1, "accumulator"),
    (1, 9, 8, 72, 5, 2, "fused"),
    (1, 9, 9, 16, 7, 1, "accumulator"),
    (2, 30, 29, 96, 3, 1, "accumulator"),
    (1, 28, 28, 120, 5, 2, "real"),
)
DEPTHWISE_PAIRS = tuple(
    PairSaturatedDepthwiseSpec(
        batch,
        height,
        width,
        channels,
        channels,
        k,
        k,
        (stride, stride),
        (k // 2,) * 4,
        groups=channels,
        requantize=kind,
    )
    for batch, height, width, channels, k, stride, kind in _PAIRS
)
DENSE = (
    *(DenseSpec(1, features, 10) for features in (1, 3, 4, 5, 17, 64)),
    *(DenseSpec(rows, 40, features) for rows, features in ((2, 1), (3, 16), (14, 33), (15, 130), (29, 58))),
    DenseSpec(1, 130, 1000),
    DenseSpec(1, 2048, 1000, requantize="real"),
    DenseSpec(3, 58, 40, in_dtype="int8", out_dtype="int8"),
    DenseSpec(5, 24, 40, requantize="fused"),
    DenseSpec(64, 256, 512),
)

_SIZES = (1, 15, 16, 17, 63, 64, 65, 130, 1000)

QUANTIZE = (
    *(QuantizeSpec((size,)) for size in _SIZES),
    QuantizeSpec((2, 3, 5), "int8"),
    *(QuantizeSpec((2, channels, 3, 37), "uint8", channels_last=True) for channels in (1, 2, 3, 4, 5, 20)),
    QuantizeSpec((1, 3, 224, 224), "int8", channels_last=True),
)

CHOOSE_QPARAMS = (
    *(ChooseQparamsSpec((size,), 0, 255) for size in (2, 31, 33, 127, *_SIZES)),
    *(ChooseQparamsSpec((2, 3, 7), 0, 127, arithmetic) for arithmetic in ("float32", "reciprocal", "float64")),
    *(ChooseQparamsSpec((3, 50), low, high, "reciprocal") for low, high in ((0, 255), (-128, 127))),
    *(ChooseQparamsSpec(shape, 0, 127) for shape in ((), (0, 4), (1, 1, 20))),
)

DYNAMIC_QUANTIZE = (
    *(DynamicQuantizeSpec((size,), "uint8", arithmetic) for size in _SIZES for arithmetic in ("fused", "rounded")),
    DynamicQuantizeSpec((2, 3, 17), "int8"),
    *(DynamicQuantizeSpec(shape) for shape in ((), (0, 4), (2, 50_000))),
)

_SUM_ARITHMETICS: tuple[SumArithmetic, ...] = ("fused", "rounded", "real")
DYNAMIC_DENSE = (
    *(DynamicDenseSpec((1, features), 10) for features in (1, 3, 4, 5, 17, 64)),
    *(
        DynamicDenseSpec((rows, 40), features, arithmetic, relu)
        for arithmetic in _SUM_ARITHMETICS
        for rows, features, relu in ((2, 1, True), (3, 16, False), (14, 33, True), (15, 130, False), (29, 58, False))
    ),
    *(DynamicDenseSpec((2, 3, 24), 40, arithmetic) for arithmetic in _SUM_ARITHMETICS),
    DynamicDenseSpec((19,), 7, relu=True),
    DynamicDenseSpec((1, 2048), 1000, "real"),
    DynamicDenseSpec((64, 256), 512),
)

DEQUANTIZE = (*(DequantizeSpec((size,)) for size in _SIZES), DequantizeSpec((2, 7, 5), "int8"))

ADD = (
    *(AddSpec((size,), vectorized=size // 64 * 64) for size in _SIZES),
    AddSpec((2, 7, 7, 40), "int8"),
    AddSpec((3, 50), vectorized=0),
    AddSpec((1, 56, 56, 64)),
)

FIXED_ADD = (*(FixedAddSpec((size,)) for size in _SIZES), FixedAddSpec((1, 28, 28, 128)))

MUL = (
    *(MulSpec((size,)) for size in _SIZES),
    MulSpec((2, 7, 5), "int8"),
    *(MulSpec((2, 3, 5, channels), per_channel=True) for channels in (1, 15, 16, 24, 40, 72, 130)),
    MulSpec((1, 28, 28, 120), "int8", per_channel=True),
)

LOOKUP = (
    *(LookupSpec((size,)) for size in _SIZES),
    LookupSpec((5, 77), "int8", "int8"),
    LookupSpec((5, 77), "uint8", "int8"),
    LookupSpec((3, 7), "int8", "uint8"),
    LookupSpec((1, 56, 56, 72)),
)

CONCATENATE = (
    ConcatenateSpec(((2, 5, 58), (2, 5, 3)), 2, (Piece(0, 0, 58), Piece(1, 0, 3))),
    ConcatenateSpec(((2, 3, 116), (2, 3, 116)), 2, (Piece(0, 0, 116, 0), Piece(1, 58, 116, 1)), tables=2),
    ConcatenateSpec(((3, 4, 200), (3, 4, 1)), 2, (Piece(1, 0, 1, 0), Piece(0, 7, 72), Piece(0, 0, 200, 0)), "int8", 1),
    ConcatenateSpec(((3, 7, 65), (3, 2, 65)), 1, (Piece(0, 2, 7, 1), Piece(1, 0, 2, 0)), "int8", 2),
    ConcatenateSpec(((2, 1300), (2, 31)), 1, (Piece(0, 0, 1300, 0), Piece(1, 0, 31)), tables=1),
    ConcatenateSpec(((1, 28, 28, 128), (1, 28, 28, 192)), 3, (Piece(0, 0, 128, 0), Piece(1, 0, 192)), tables=1),
)

MAX_POOL2D = (
    *(MaxPool2dSpec(1, 5, 7, channels, (3, 3), (2, 2), (1, 1, 1, 1)) for channels in (1, 15, 16, 17, 40, 72, 130)),
    *(MaxPool2dSpec(1, size, 9, 20, (3, 3), (2, 2), (1, 1, 1, 1), "int8", ceil_mode=True) for size in (3, 4, 5)),
    MaxPool2dSpec(2, 8, 9, 24, (2, 3), (1, 2), (0, 1, 1, 0)),
    MaxPool2dSpec(1, 9, 9, 24, (3, 3), (1, 1), (1, 1, 1, 1), dilation=(2, 2)),
    MaxPool2dSpec(1, 2, 2, 16, (2, 2), (1, 1), (2, 3, 2, 2), "int8"),
    MaxPool2dSpec(1, 112, 112, 64, (3, 3), (2, 2), (1, 1, 1, 1)),
)

AVG_POOL2D = (
    *(AvgPool2dSpec(1, 7, 7, channels, (7, 7), (7, 7)) for channels in (1, 15, 16, 17, 40, 72, 130)),
    *(
        AvgPool2dSpec(2, 5, 6, 40, (3, 3), (1, 1), (1, 1, 1, 1), dtype, arithmetic=arithmetic)
        for arithmetic in ("codes", "quotient", "scaled", "scaled_shifted", "fused")
        for dtype in ("uint8", "int8")
    ),
    AvgPool2dSpec(1, 8, 9, 5, (2, 3), (2, 2), (0, 1, 1, 0), arithmetic="fused"),
    AvgPool2dSpec(1, 35, 35, 192, (3, 3), (1, 1), (1, 1, 1, 1)),
)
