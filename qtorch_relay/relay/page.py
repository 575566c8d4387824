"""docs/relay.md: the table of Relay forms as a page. `python -m qtorch_relay.relay.page > docs/relay.md` makes it."""

from __future__ import annotations

from qtorch_relay.qnn.op_def import OPS
from qtorch_relay.relay import forms as _forms  # noqa: F401  (fills the table)
from qtorch_relay.relay.registry import CANONICAL, NO_COST, QNN_FORMS, RELAX_FORMS, Form
from qtorch_relay.relay.text import WITHOUT_FORM

_HEAD = """# Relay text

Made by `python -m qtorch_relay.relay.page > docs/relay.md` from the table in `qtorch_relay/relay/forms`: what each op
of an imported module becomes in Relay text, and what that costs in codes against PyTorch. `--exact` takes the forms
that cost nothing, and for the others writes plain ops: the codes of engine fbgemm are then PyTorch's. Measured on
networks in a TVM 0.17: [results.md](../accuracy_reports/relay_era/results.md).
"""
_NOTES = """
Single numbers are literals; weights, vectors of scales and tables are parameters named after their layer. `qnn.add` and
`qnn.avg_pool2d` are not used for PyTorch's: Relay's requantizes both sides before it adds them, and truncates means.
A toolchain that wants `qnn.add` can make it of dequantize, add and quantize with Relay's FakeQuantizationToInteger.
"""


def relay_page() -> str:
    """Returns the table as a Markdown page."""
    lines = [_HEAD, "## Ops of the dialect", "", "| op | arithmetic | becomes | cost in codes | with --exact |"]
    lines.append("|---|---|---|---|---|")
    for op in OPS:
        forms = QNN_FORMS.get(op, [])
        lines += [_qnn_row(op, form) for form in forms]
        if not forms:
            lines.append(f"| `{op}` | all | {CANONICAL} | {NO_COST} | the same |")
        elif any(form.arithmetics for form in forms):
            lines.append(f"| `{op}` | any other | {CANONICAL} | {NO_COST} | the same |")
    lines += ["", "## Plain ops", "", "| op | becomes | cost |", "|---|---|---|"]
    rows: dict[tuple[str, str], list[str]] = {}
    for op, form in RELAX_FORMS.items():
        rows.setdefault((form.becomes, form.cost), []).append(f"`{op.removeprefix('relax.')}`")
    lines += [f"| {', '.join(ops)} | {becomes} | {cost} |" for (becomes, cost), ops in rows.items()]
    lines += ["", "## Refused", "", "| op | why |", "|---|---|"]
    lines += [f"| {words} | {reason} |" for words, reason in WITHOUT_FORM.values()]
    return "\n".join(lines) + "\n" + _NOTES


def _qnn_row(op: str, form: Form) -> str:
    exact = "the same" if form.exact else "plain ops"
    return f"| `{op}` | {', '.join(form.arithmetics) or 'all'} | {form.becomes} | {form.cost} | {exact} |"


if __name__ == "__main__":
    print(relay_page(), end="")
