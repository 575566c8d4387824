"""Specs whose speed is reported: layers of the quantizable models of torchvision, at batch 1."""

from __future__ import annotations

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec, DynamicDenseSpec, DynamicQuantizeSpec
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
from qtorch_relay.kernels.spec import Conv2dAddSpec, Conv2dSpec, DenseSpec, PairSaturatedDepthwiseSpec


def _conv(size: int, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Conv2dSpec:
    """A square convolution, padded to keep the size but for its stride, requantized as onednn does."""
    padding = (kernel // 2,) * 4
    return Conv2dSpec(
        1,
        size,
        size,
        in_channels,
        out_channels,
        kernel,
        kernel,
        (stride, stride),
        padding,
        groups=groups,
        requantize="real",
    )


CONV2D = (
    # resnet18, resnet50
    _conv(224, 3, 64, 7, 2),
    _conv(56, 64, 64, 3),
    _conv(28, 128, 128, 3),
    _conv(14, 256, 256, 3),
    _conv(7, 512, 512, 3),
    _conv(56, 128, 128, 3, 2),
    _conv(28, 256, 256, 3, 2),
    _conv(14, 512, 512, 3, 2),
    _conv(56, 64, 64, 1),
    _conv(56, 64, 256, 1),
    _conv(56, 256, 64, 1),
    _conv(56, 256, 128, 1),
    _conv(28, 128, 512, 1),
    _conv(28, 512, 128, 1),
    _conv(28, 512, 256, 1),
    _conv(14, 256, 1024, 1),
    _conv(14, 1024, 256, 1),
    _conv(14, 1024, 512, 1),
    _conv(7, 512, 2048, 1),
    _conv(7, 2048, 512, 1),
    _conv(56, 256, 512, 1, 2),
    _conv(28, 512, 1024, 1, 2),
    _conv(14, 1024, 2048, 1, 2),
    _conv(56, 64, 128, 1, 2),
    # mobilenet_v2, shufflenet_v2, inception_v3
    _conv(224, 3, 32, 3, 2),
    _conv(112, 16, 96, 1),
    _conv(56, 24, 144, 1),
    _conv(14, 96, 576, 1),
    _conv(28, 58, 58, 1),
    _conv(35, 64, 96, 3),
    _conv(17, 768, 192, 1),
    # resnext101_32x8d
    _conv(56, 256, 256, 3, groups=32),
    _conv(28, 512, 512, 3, groups=32),
    _conv(14, 1024, 1024, 3, groups=32),
    _conv(7, 2048, 2048, 3, groups=32),
)

DEPTHWISE = (
    # mobilenet_v2, mobilenet_v3_large, shufflenet_v2
    _conv(112, 32, 32, 3, groups=32),
    _conv(112, 96, 96, 3, 2, groups=96),
    _conv(56, 144, 144, 3, groups=144),
    _conv(28, 192, 192, 3, groups=192),
    _conv(14, 384, 384, 3, groups=384),
    _conv(7, 960, 960, 3, groups=960),
    _conv(28, 120, 120, 5, groups=120),
    _conv(14, 672, 672, 5, 2, groups=672),
    _conv(28, 58, 58, 3, groups=58),
)

CONV2D_ADD = tuple(
    spec.to(Conv2dAddSpec)
    for spec in (_conv(56, 64, 256, 1), _conv(28, 128, 512, 1), _conv(14, 256, 1024, 1), _conv(56, 64, 64, 3))
)

DEPTHWISE_PAIRS = tuple(spec.to(PairSaturatedDepthwiseSpec) for spec in DEPTHWISE[:-1])

DENSE = (DenseSpec(1, 2048, 1000), DenseSpec(1, 1280, 1000), DenseSpec(1, 960, 1280))

QUANTIZE = (QuantizeSpec((1, 3, 224, 224), channels_last=True),)

# one token and 128 of transformer encoders with 256 and 1024 features
_TOKENS = tuple((rows, features) for features in (256, 1024) for rows in (1, 128))

CHOOSE_QPARAMS = tuple(ChooseQparamsSpec(shape, 0, 127) for shape in _TOKENS)

DYNAMIC_QUANTIZE = tuple(DynamicQuantizeSpec(shape) for shape in _TOKENS)

DYNAMIC_DENSE = tuple(DynamicDenseSpec(shape, shape[1]) for shape in _TOKENS)

DEQUANTIZE = (DequantizeSpec((1, 1000)),)

ADD = (AddSpec((1, 56, 56, 256)), AddSpec((1, 14, 14, 96)))

FIXED_ADD = (FixedAddSpec((1, 56, 56, 256)),)

MUL = (MulSpec((1, 28, 28, 120), per_channel=True),)

LOOKUP = (LookupSpec((1, 56, 56, 72)),)

CONCATENATE = (
    ConcatenateSpec(
        ((1, 28, 28, 128), (1, 28, 28, 192), (1, 28, 28, 96), (1, 28, 28, 64)),
        3,
        (Piece(0, 0, 128, 0), Piece(1, 0, 192, 1), Piece(2, 0, 96, 2), Piece(3, 0, 64, 3)),
        tables=4,
    ),
)

MAX_POOL2D = (MaxPool2dSpec(1, 112, 112, 64, (3, 3), (2, 2), (1, 1, 1, 1)),)

AVG_POOL2D = (
    AvgPool2dSpec(1, 7, 7, 2048, (7, 7), (7, 7), arithmetic="fused"),
    AvgPool2dSpec(1, 35, 35, 192, (3, 3), (1, 1), (1, 1, 1, 1)),
)
