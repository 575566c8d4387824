"""The comment at the head of Relay text: how to read what it has that does not explain itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

CHANGES_NOTHING = "changes nothing"
_ALWAYS = (
    "One op a line; behind it the layer that it computes or is part of, and its type. Weights are parameters, named "
    "after their layer."
)
# Patterns of lines: what is said of them.
_SAID = {
    r" 12582912f\)": "x + 12582912f - 12582912f is x rounded to the nearest integer, ties to even: float32 numbers "
    "near 1.5 * 2**23 are the integers. The clip between them keeps both.",
    r" 6755399441055744f64\)": "x + 6755399441055744f64 - 6755399441055744f64 rounds a float64 in the same way.",
    r"= multiply\(%\d+, (\S+)\);.*\n.*= qnn\.quantize\(%\d+, \1,": "qnn.quantize gets multiples of its scale, and has "
    "nothing to round.",
    r"qnn\.requantize\(%\d+, (\S+), \S+, \1, ": "qnn.requantize from a scale to the same scale rounds nothing: it adds "
    "the zero point and narrows.",
    CHANGES_NOTHING: "maximum(-3e+38f, x) is x: it keeps Relay and LLVM from merging what PyTorch rounds one by one.",
    'dtype="float64"': "float64 stands where PyTorch has double, or a multiply-add that rounds once.",
    r"divide\(1f, 0f\)": "divide(1f, 0f) is infinity, which has no literal.",
    "annotation.stop_fusion": "annotation.stop_fusion: a number that is computed once, not for each element it is for.",
}


def legend(lines: Sequence[str]) -> str:
    """Returns the comment for lines of Relay text."""
    text = "\n".join(lines)
    said = [_ALWAYS, *(sentence for pattern, sentence in _SAID.items() if re.search(pattern, text))]
    return "\n".join(["/*", *(fill(each, 118, initial_indent="  ", subsequent_indent="  ") for each in said), "*/"])
