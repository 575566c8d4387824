"""Kernels for any number of samples: the kernel of one sample, repeated over the first dimension of its tensors."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from qtorch_relay.kernels.dynamic_spec import ChooseQparamsSpec
from qtorch_relay.kernels.pointwise_spec import AddSpec, ConcatenateSpec


def of_one_sample(spec: Any, samples: int) -> Any | None:
    """Returns the spec whose kernel, run on each of so many equal parts of the first dimension, computes the same.

    None if the first dimension is not so many equal parts. Every kernel treats what lies along it independently: images
    of a convolution or pool, rows of a dense layer, codes of what works code by code.
    """
    if isinstance(spec, AddSpec) and spec.vectorized is not None:
        return None  # the codes that are added one by one are the last of all samples
    if isinstance(spec, ChooseQparamsSpec):
        return None  # the range is that of all samples
    if isinstance(spec, ConcatenateSpec):
        if not spec.axis or spec.shapes[0][0] % samples:
            return None
        return replace(spec, shapes=tuple((shape[0] // samples, *shape[1:]) for shape in spec.shapes))
    name = next(field.name for field in fields(spec) if field.name in ("batch", "rows", "shape"))
    value = getattr(spec, name)
    if name != "shape":
        return replace(spec, **{name: value // samples}) if value % samples == 0 else None
    if not value or value[0] % samples:
        return None
    return replace(spec, shape=(value[0] // samples, *value[1:]))
