"""Where a classifier's logits are among its outputs, and what their codes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qtorch_relay.errors import InvalidInputError
from qtorch_relay.peers import Logits
from qtorch_relay.qparams import PerTensor, QuantizedTensor

CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_COPIES = "aten::dequantize"


@dataclass(frozen=True, config=CONFIG)
class LogitsForm:
    """index: of the flat output that has the logits [n, classes]; scale, zero_point: None where they are no codes.

    is_quantized: whether the output is a quantized tensor, or the floats that a dequantize made of one.
    """

    index: Annotated[int, Field(ge=0)]
    classes: Annotated[int, Field(ge=2)]
    scale: Annotated[float, Field(gt=0)] | None
    zero_point: int | None
    is_quantized: bool

    def of_floats(self, floats: npt.NDArray[np.float32]) -> Logits:
        """Returns the logits of dequantized ones: float32 scale * (code - zero_point) / scale rounds to the code."""
        if self.scale is None or self.zero_point is None:
            return Logits(floats, None)
        return Logits(floats, np.rint(floats / np.float32(self.scale)).astype(np.int64) + self.zero_point)

    def of_codes(self, codes: npt.NDArray[Any]) -> Logits:
        """Returns the logits of an output of codes."""
        assert self.scale is not None
        assert self.zero_point is not None
        wide = codes.astype(np.int64)
        return Logits((wide - self.zero_point).astype(np.float32) * np.float32(self.scale), wide)

    def of_array(self, output: npt.NDArray[Any]) -> Logits:
        """Returns the logits of an output as a compiled program gives it: codes where PyTorch's is quantized."""
        return self.of_codes(output) if self.is_quantized else self.of_floats(output)


def find_logits(shapes: Sequence[tuple[int, ...]], batch: int) -> int:
    """Returns which of the flat outputs has the logits: the first [batch, classes].

    Raises:
        InvalidInputError: none has.
    """
    for index, shape in enumerate(shapes):
        if len(shape) == 2 and shape[0] == batch and shape[1] >= 2:
            return index
    found = ", ".join(str(list(shape)) for shape in shapes)
    raise InvalidInputError(
        f"accuracy needs a classifier, with logits [{batch}, classes] among its outputs; this model gives {found}"
    )


def dequantized_from(graph: Any, values: Mapping[str, Any], index: int) -> PerTensor | None:
    """Returns the quantization parameters of what the flat output of a captured graph is dequantized from.

    values: what a reference run recorded. None where the output is made in float.
    """
    name = getattr(_leaves(graph.output)[index], "name", None)
    maker = next((node for node in graph.nodes if name in [value.name for value in node.outputs]), None)
    if maker is None or maker.name != _COPIES:
        return None
    source = values.get(getattr(maker.args.get("self"), "name", ""))
    if isinstance(source, QuantizedTensor) and isinstance(source.qparams, PerTensor):
        return source.qparams
    return None


def _leaves(output: Any) -> list[Any]:
    if isinstance(output, list | tuple):
        return [leaf for item in output for leaf in _leaves(item)]
    if isinstance(output, dict):
        return [leaf for item in output.values() for leaf in _leaves(item)]
    return [] if output is None else [output]
