"""The families of the op matrix: each a module with a function cases()."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.matrix import (
    activations,
    binary,
    conv,
    conv_dynamic,
    conv_transposed,
    decomposed,
    dynamic,
    embedding,
    fake_quantize,
    filling,
    indexing,
    limits,
    linear,
    norms,
    ordering,
    pools,
    quantize,
    resize,
    rnn,
    shapes,
    softmax,
    statistics,
    wide,
)
from tests.matrix.case import Case

FAMILIES: dict[str, Callable[[], Iterator[Case]]] = {
    "activations": activations.cases,
    "binary": binary.cases,
    "conv": conv.cases,
    "conv_dynamic": conv_dynamic.cases,
    "conv_transposed": conv_transposed.cases,
    "decomposed": decomposed.cases,
    "dynamic": dynamic.cases,
    "embedding": embedding.cases,
    "fake_quantize": fake_quantize.cases,
    "filling": filling.cases,
    "indexing": indexing.cases,
    "limits": limits.cases,
    "linear": linear.cases,
    "norms": norms.cases,
    "ordering": ordering.cases,
    "pools": pools.cases,
    "quantize": quantize.cases,
    "resize": resize.cases,
    "rnn": rnn.cases,
    "shapes": shapes.cases,
    "softmax": softmax.cases,
    "statistics": statistics.cases,
    "wide": wide.cases,
}
