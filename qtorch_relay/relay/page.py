"""docs/relay.md: the table of Relay forms as a page. `python -m qtorch_relay.relay.page > docs/relay.md` makes it."""

from __future__ import annotations

from qtorch_relay.qnn.op_def import OPS
from qtorch_relay.relay import forms as _forms  # noqa: F401  (fills the table)
from qtorch_relay.relay.options import DEFAULT, MODES, QNN
from qtorch_relay.relay.registry import CANONICAL, NO_COST, QNN_FORMS, RELAX_FORMS, Form
from qtorch_relay.relay.text import WITHOUT_FORM

_HEAD = """# Relay text

Made by `python -m qtorch_relay.relay.page > docs/relay.md` from the table in `qtorch_relay/relay/forms`: what each op
of an imported module becomes in Relay text, and what that costs in codes against PyTorch. The default takes the first
form that costs none, and writes plain ops where no op of Relay rounds as PyTorch does. `--exact` takes no form whose
codes hang on the machine that builds the text either. `--requantize qnn` takes the first form whatever it costs: it is
for toolchains that match `qnn.conv2d`, `nn.bias_add`, `qnn.requantize`. Measured on networks and on the rows of the op
matrix in a TVM 0.17: [results.md](../accuracy_reports/relay_era/results.md). `CanonicalizeOps` gives the integers that
Relay's own canonicalization gives: [op by op](relay_canonicalization.md).

How plain ops round (`relay/finish.py`): the bias is added and the sum scaled in float32 as PyTorch does it, clipped to
the codes' range, and rounded to the nearest, ties to even, by adding 12582912 and taking it away again. The end is
`qnn.requantize` from the output's scale to the same scale: it adds the zero point and narrows, and tells both to who
reads the text. A float input is moved to a multiple of the scale in the same way, so that `qnn.quantize` has nothing to
round. `maximum(-3e38, x)`, or a `clip` to the range of what is added, changes nothing: it keeps Relay's SimplifyExpr
and LLVM from merging operations that PyTorch rounds one by one. A constant divisor is a parameter, or a power of two:
TVM multiplies by the rounded reciprocal of any other literal. The comment at the head of a text says which of these
it has.
"""
_WRITTEN = {MODES: "always", (DEFAULT, QNN): "not with --exact", (QNN,): "with --requantize qnn"}
_NOTES = """
Single numbers are literals; weights, vectors of scales and tables are parameters named after their layer. `qnn.add` and
`qnn.avg_pool2d` are not used for PyTorch's: Relay's requantizes both sides before it adds them, and truncates means.
A toolchain that wants `qnn.add` can make it of dequantize, add and quantize with Relay's FakeQuantizationToInteger.
"""


def relay_page() -> str:
    """Returns the table as a Markdown page."""
    lines = [_HEAD, "## Ops of the dialect", "", "| op | arithmetic | form | cost in codes | written |"]
    lines.append("|---|---|---|---|---|")
    for op in OPS:
        forms = QNN_FORMS.get(op, [])
        lines += [_qnn_row(op, form) for form in forms]
        if not forms:
            lines.append(f"| `{op}` | all | {CANONICAL} | {NO_COST} | always |")
        elif any(form.arithmetics for form in forms):
            lines.append(f"| `{op}` | else | {CANONICAL} | {NO_COST} | always |")
    lines += ["", "## Plain ops", "", "| op | becomes | cost |", "|---|---|---|"]
    rows: dict[tuple[str, str], list[str]] = {}
    for op, form in RELAX_FORMS.items():
        rows.setdefault((form.becomes, form.cost), []).append(f"`{op.removeprefix('relax.')}`")
    lines += [f"| {', '.join(ops)} | {becomes} | {cost} |" for (becomes, cost), ops in rows.items()]
    lines += ["", "## Refused", "", "| op | why |", "|---|---|"]
    lines += [f"| {words} | {reason} |" for words, reason in WITHOUT_FORM.values()]
    return "\n".join(lines) + "\n" + _NOTES


def _qnn_row(op: str, form: Form) -> str:
    return (
        f"| `{op}` | {', '.join(form.arithmetics) or 'all'} | {form.becomes} | {form.cost} | {_WRITTEN[form.modes]} |"
    )


if __name__ == "__main__":
    print(relay_page(), end="")
