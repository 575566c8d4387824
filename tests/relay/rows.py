"""Rows of the op matrix in a real TVM with Relay: `python -m tests.relay.rows` runs them and keeps what they gave.

Needs QTORCH_RELAY_ERA_PYTHON. Rows are parsed, type-checked, built and run: the smallest row of each op, then the next
of each, so that a run that is stopped has seen all ops. What is kept of the same text is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import Progress

from accuracy_reports.relay_era.__main__ import keep, read_runs
from accuracy_reports.relay_era.job import VARIABLE, RelayEraError, check_texts, interpreter, run_texts
from accuracy_reports.relay_era.rows import Outcome, Row, keep_rows, misses_of, read_rows
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.packed import quantized_tensor
from qtorch_relay.capture.torchscript import capture_model
from qtorch_relay.errors import UnsupportedOpError
from qtorch_relay.frontend.importer import import_graph
from qtorch_relay.relay.options import Options
from qtorch_relay.relay.text import imported_text
from tests.matrix.case import Case
from tests.matrix.families import FAMILIES
from tests.matrix.run import Rows

ENGINE = "fbgemm"
OPTIONS = {"default": Options(), "exact": Options(exact=True)}
# Floats may differ by the order of additions and by Relay's own functions; codes may not.
FLOAT_FRACTION = 1e-5
IN_A_PROCESS = 64
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Texts:
    """A row's text and parameters in each mode ("exact" only if it is another), its inputs, and PyTorch's outputs."""

    programs: dict[str, tuple[str, bytes]]
    inputs: dict[str, npt.NDArray[Any]]
    expected: list[npt.NDArray[Any]]

    def digest(self) -> str:
        """Returns what tells these programs from others; comments do not."""
        hashed = hashlib.sha256()
        for mode, (text, params) in self.programs.items():
            for part in (mode.encode(), COMMENT.sub("", text).encode(), params):
                hashed.update(len(part).to_bytes(8, "little") + part)
        return hashed.hexdigest()[:16]


def matrix() -> list[Case]:
    """Returns all rows of the engine: the smallest of each op, then the next of each, and so on."""
    cases = [case for cases in FAMILIES.values() for case in cases() if ENGINE in case.engines]
    cases.sort(key=lambda case: sum(array.size for array in case.inputs))
    seen: Counter[str] = Counter()
    places = []
    for case in cases:
        places.append(seen[case.op])
        seen[case.op] += 1
    return [case for _, case in sorted(zip(places, cases, strict=True), key=lambda pair: pair[0])]


def texts_of(case: Case) -> Texts:
    """Returns a row as Relay text.

    Raises: UnsupportedOpError if an op of it has no Relay form.
    """
    infos = [(f"x{i}", torch.from_numpy(array.copy())) for i, array in enumerate(case.inputs)]
    with quantized_engine(ENGINE), torch.no_grad():
        module = Rows([case]).eval()
        expected = module.each([tensor for _, tensor in infos])[0]
        imported = import_graph(capture_model(module, infos, ENGINE).graph)
    programs = {mode: imported_text(imported, options) for mode, options in OPTIONS.items()}
    if programs["exact"] == programs["default"]:
        del programs["exact"]
    arrays = [quantized_tensor(out).codes if out.is_quantized else out.detach().numpy() for out in expected]
    return Texts(programs, {f"x{i}": array for i, array in enumerate(case.inputs)}, arrays)


def written(case: Case) -> Texts | str:
    """Returns a row as Relay text, or the ops of it that have none."""
    try:
        return texts_of(case)
    except UnsupportedOpError as error:
        return " ".join(line.strip() for line in str(error).splitlines()[1:-1]) or str(error)


def type_errors(cases: Sequence[Case]) -> list[str]:
    """Returns what Relay's parser or type checker has against rows' texts, of all modes."""
    made = {case.id: written(case) for case in cases}
    texts = {
        f"{name}, {mode}": program[0]
        for name, item in made.items()
        if isinstance(item, Texts)
        for mode, program in item.programs.items()
    }
    errors = check_texts(list(texts.values()))
    return [f"{name}: {error}" for name, error in zip(texts, errors, strict=True) if error]


def run_rows(cases: Sequence[Case], kept: Mapping[str, Row] | None = None) -> list[Row]:
    """Returns how rows' texts do in each mode; what is kept of the same text is not run again."""
    made = [written(case) for case in cases]
    rows = [_row_without_outcome(case, item) for case, item in zip(cases, made, strict=True)]
    todo = [i for i, row in enumerate(rows) if not row.refused and _as_kept(row, kept) is None]
    outcomes = _run([item for i in todo if isinstance(item := made[i], Texts)])
    fresh = {i: replace(rows[i], modes=modes) for i, modes in zip(todo, outcomes, strict=True)}
    return [fresh.get(i) or _as_kept(row, kept) or row for i, row in enumerate(rows)]


def _row_without_outcome(case: Case, item: Texts | str) -> Row:
    if isinstance(item, str):
        return Row(case.id, case.op, refused=item)
    return Row(case.id, case.op, item.digest())


def _as_kept(row: Row, kept: Mapping[str, Row] | None) -> Row | None:
    """Returns the row that is kept of the same text, None if there is none."""
    old = (kept or {}).get(row.id)
    return old if old is not None and old.text == row.text and not row.refused else None


def _run(items: Sequence[Texts]) -> list[dict[str, Outcome]]:
    """Runs texts in one process; one that dies is taken apart by halves."""
    if not items:
        return []
    programs = [(*program, item.inputs) for item in items for program in item.programs.values()]
    try:
        results = iter(run_texts(programs))
    except RelayEraError as error:
        if len(items) == 1:
            return [{mode: Outcome(error=str(error)) for mode in items[0].programs}]
        half = len(items) // 2
        return _run(items[:half]) + _run(items[half:])
    return [{mode: _outcome(item.expected, *next(results)) for mode in item.programs} for item in items]


def _outcome(expected: Sequence[npt.NDArray[Any]], error: str, found: Sequence[npt.NDArray[Any]]) -> Outcome:
    if error:
        return Outcome(error=error)
    compared = [_compare(theirs, ours) for theirs, ours in zip(expected, found, strict=True)]
    codes = [each for each in compared if each[0] == "codes"]
    kind, chosen = ("codes", codes) if codes else ("floats", compared)
    return Outcome(kind, sum(each[1] for each in chosen), sum(each[2] for each in chosen))


def _compare(theirs: npt.NDArray[Any], ours: npt.NDArray[Any]) -> tuple[str, int, int]:
    """Returns the kind, the number of elements and how many of them differ."""
    assert (theirs.shape, theirs.dtype) == (ours.shape, ours.dtype)
    unequal = theirs != ours
    if theirs.dtype.kind != "f":
        return "codes", theirs.size, int(unequal.sum())
    unequal &= ~(np.isnan(theirs) & np.isnan(ours))
    magnitude = np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0)
    unequal &= ~(np.abs(theirs.astype(np.float64) - ours) <= FLOAT_FRACTION * magnitude)
    return "floats", theirs.size, int(unequal.sum())


def _chunks(items: Sequence[Case], size: int) -> Iterator[Sequence[Case]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def main() -> int:
    """Runs what is not kept yet, for as long as the arguments say; returns 1 if a row misses the bar."""
    parser = argparse.ArgumentParser(prog="python -m tests.relay.rows", description=__doc__)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so long")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--types", action="store_true", help="only parse and type-check, keep nothing")
    options = parser.parse_args()
    if not interpreter():
        print(f"error: set {VARIABLE} to the Python of a TVM that has Relay (0.17)", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", module=r"(torch|tests)(\.|$)")
    end = time.monotonic() + 60 * options.minutes
    cases = [case for case in matrix() if options.only in case.id]
    rows, errors = {row.id: row for row in read_rows()}, list[str]()
    with Progress(console=Console(stderr=True)) as bars:
        for chunk in bars.track(list(_chunks(cases, IN_A_PROCESS)), description="rows"):
            if time.monotonic() >= end:
                break
            if options.types:
                errors += type_errors(chunk)
            else:
                rows |= {row.id: row for row in run_rows(chunk, rows)}
                keep_rows(list(rows.values()), len(matrix()))
    keep(read_runs())  # the page, with these rows
    missed = errors if options.types else misses_of(list(rows.values()))
    print("\n".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
