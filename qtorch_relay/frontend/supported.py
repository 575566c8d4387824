"""The table of ops: those of the registry, and those of PyTorch's dispatcher that work on quantized tensors."""

from __future__ import annotations

from qtorch_relay.capture.dispatcher import quantized_op_names
from qtorch_relay.frontend import ops as _ops  # noqa: F401  (fills the registry)
from qtorch_relay.frontend.importer import STRUCTURAL
from qtorch_relay.frontend.registry import CONVERTERS, FOLDINGS, REFUSALS, Converter

CONVERTED, FOLDED, REFUSED, UNKNOWN = "converted", "folded away", "refused", "not supported"


def supported_ops() -> list[dict[str, str]]:
    """Returns one row per op that is known or that PyTorch's dispatcher runs on quantized tensors, sorted by name.

    Keys: "op" (a name without an overload stands for all overloads that have no row of their own), "kind" ("converted",
    "folded away", "refused" or "not supported"), "lowering" (what it becomes; the reason where it is refused), "exact"
    (where it is equal to PyTorch's to the last bit), "note" (where PyTorch contradicts itself), "schema".
    """
    rows = [_converted(found) for found in CONVERTERS.values()]
    rows += [_row(op, FOLDED, found.how) for op, found in FOLDINGS.items()]
    rows += [
        _row(op, REFUSED, found.reason + (f"; nearest: {found.nearest}" if found.nearest else ""))
        for op, found in REFUSALS.items()
    ]
    rows += [_row(op, FOLDED, "followed at import") for op in STRUCTURAL]
    known = {row["op"] for row in rows}
    rows += [_row(op, UNKNOWN, "") for op in quantized_op_names() if op not in known and op.split(".")[0] not in known]
    return sorted(rows, key=lambda row: row["op"])


def ops_page() -> str:
    """Returns the table as a Markdown page."""
    rows = supported_ops()
    counts = {kind: sum(row["kind"] == kind for row in rows) for kind in (CONVERTED, FOLDED, REFUSED, UNKNOWN)}
    lines = [
        "# Ops",
        "",
        "Made by `qtorch-relay ops --markdown` from the registry of converters and PyTorch's dispatcher: every op in",
        "`quantized::`, every `aten::` op with a kernel for quantized tensors, and the float ops that models have",
        "beside them. A name without an overload stands for all overloads that have no row of their own.",
        "",
        ", ".join(f"{count} {kind}" for kind, count in counts.items()) + ".",
        "",
        "| op | kind | becomes, or why not | equal to PyTorch's bits | note |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['op']}` | {row['kind']} | {_cell(row['lowering'])} | {_cell(row['exact'])} | {_cell(row['note'])} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _converted(found: Converter) -> dict[str, str]:
    kind = FOLDED if found.lowering == "nothing" else CONVERTED
    schema = (found.convert.__doc__ or "").strip().split("\n")[0]
    return {
        "op": found.op,
        "kind": kind,
        "lowering": found.lowering,
        "exact": found.exact,
        "note": found.note,
        "schema": schema,
    }


def _row(op: str, kind: str, lowering: str) -> dict[str, str]:
    return {"op": op, "kind": kind, "lowering": lowering, "exact": "", "note": "", "schema": ""}
