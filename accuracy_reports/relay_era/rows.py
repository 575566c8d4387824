"""Rows of the op matrix in a real TVM with Relay: what is kept of each, and their table by op.

`python -m tests.relay.rows` runs the rows and keeps them in rows.json; the page of results reads them from there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from qtorch_relay.output_files import atomic_write

ROWS = Path(__file__).with_name("rows.json")


@dataclass(frozen=True)
class Outcome:
    """How a row's text in one mode does: what differs from PyTorch, or the error that kept it from running.

    kind: "codes", or "floats" (then only what is off by more than rounding counts as different).
    """

    kind: str = "codes"
    elements: int = 0
    differing: int = 0
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A row of the matrix: refused by name, or parsed, type-checked, built and run.

    text: the digest of its texts and parameters: rows of another text are to be run again.
    refused: the ops that have no Relay form.
    modes: "default" and "exact" where they were run; the second is left out where its text is the first's.
    """

    id: str
    op: str
    text: str = ""
    refused: str = ""
    modes: dict[str, Outcome] = field(default_factory=dict)

    def outcome(self, mode: str) -> Outcome | None:
        """Returns how a mode's text did, None if it was not run."""
        return self.modes.get(mode) or self.modes.get("default")


def rows_in_the_matrix(path: Path = ROWS) -> int:
    """Returns how many rows the matrix had when the kept ones were run."""
    return int(json.loads(path.read_text())["of"]) if path.exists() else 0


def read_rows(path: Path = ROWS) -> list[Row]:
    """Returns the rows that are kept."""
    if not path.exists():
        return []
    return [
        Row(**{**data, "modes": {mode: Outcome(**outcome) for mode, outcome in data.get("modes", {}).items()}})
        for data in json.loads(path.read_text())["rows"]
    ]


def keep_rows(rows: Sequence[Row], of: int, path: Path = ROWS) -> None:
    """Writes rows, one a line, of so many that the matrix has; fields that say nothing are left out."""
    lines = ",\n".join(json.dumps(_spare(row)) for row in sorted(rows, key=lambda row: row.id))
    with atomic_write(path) as file:
        file.write(f'{{"of": {of}, "rows": [\n{lines}\n]}}\n'.encode())


def _spare(item: Any) -> dict[str, Any]:
    defaults = {each.name: each.default for each in fields(item)}
    data = {name: value for name, value in asdict(item).items() if value and value != defaults[name]}
    if isinstance(item, Row) and item.modes:
        data["modes"] = {mode: _spare(outcome) for mode, outcome in item.modes.items()}
    return data


def rows_to_markdown(rows: Sequence[Row], of: int) -> list[str]:
    """Returns the lines of the table by op, and of what misses; of: how many rows the matrix has."""
    refused, apart = sum(bool(row.refused) for row in rows), sum("exact" in row.modes for row in rows)
    lines = [
        "## Rows of the op matrix",
        "",
        f"Made by `python -m tests.relay.rows`: {len(rows)} of the {of} rows of engine fbgemm, the smallest of each op",
        f"first. {len(rows) - refused} were parsed, type-checked, built and run, {refused} are refused by name; with",
        f"`--exact` {apart} of them have another text, which was run too. Floats count as different past 1e-5 of the",
        "greatest; codes may not differ at all.",
        "",
        "| op | rows | refused | run | rows with codes that differ: default | --exact | rows with floats that differ |",
        "|---|---|---|---|---|---|---|",
    ]
    by_op: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_op[row.op].append(row)
    for op, group in sorted(by_op.items()):
        counts = [
            sum(bool(row.refused) for row in group),
            sum(bool(row.modes) for row in group),
            *(sum(_differs(row, mode, "codes") for row in group) for mode in ("default", "exact")),
            sum(_differs(row, "exact", "floats") for row in group),
        ]
        lines.append(f"| `{op}` | {len(group)} | {' | '.join(map(str, counts))} |")
    return [*lines, "", *(misses_of(rows) or ["No row differs."]), ""]


def misses_of(rows: Sequence[Row]) -> list[str]:
    """Returns a line for every row that misses the bar."""
    found = []
    for row in rows:
        for mode, outcome in row.modes.items():
            if outcome.error:
                found.append(f"- `{row.id}`, {mode}: {outcome.error}")
            elif outcome.differing:
                found.append(f"- `{row.id}`, {mode}: {outcome.differing} of {outcome.elements} {outcome.kind} differ")
    return found


def _differs(row: Row, mode: str, kind: str) -> bool:
    outcome = row.outcome(mode)
    return outcome is not None and outcome.kind == kind and bool(outcome.differing or outcome.error)
