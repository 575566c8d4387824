"""Rows of `make zoo-fx` and `make zoo-float`: docs/zoo_fx.json, and the page docs/zoo_fx.md made from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from qtorch_relay.output_files import atomic_write

_ABOUT = """# More of torchvision's classifiers against PyTorch, element by element

`make zoo-fx` and `make zoo-float` make this page, `--keep` goes on where a run was ended. PyTorch 2.13 with one thread,
on a CPU with AVX512-VNNI. Weights are seeded; the image is none of those that were calibrated with.

Every layer is computed from PyTorch's own values of its inputs and compared element by element. Codes: how many there
are, and how many differ. Floats: the same, and the largest difference in float32 steps at the tensor's largest value
(ulp), with the ops it is in. At ties: how many codes move because a float that is quantized differs by its rounding,
when each float part of the program runs from PyTorch's codes; such a code lies at a rounding tie and moves by one step.
Output: how far the outputs of the whole program, run from its input alone, differ, as a fraction of the largest.
"""

_QUANTIZED = """## Quantized by FX with default settings, traced, saved and loaded
"""
_FLOAT = """## As they are, in float

The bar is 1e-4 of the output's range. Convolutions of floats are oneDNN's in PyTorch, which adds in another order.
"""


Key: TypeAlias = tuple[bool, str, str, str, int]  # is_float, model, engine, path, size


@dataclass(frozen=True)
class FxRow:
    """One network on one engine and path.

    is_float: the network as it is; else quantized.
    largest_ulp: of all float layers; wrong: layers that differ by more than rounding, empty if all is well.
    output_differing and output_fraction: of the outputs of the whole program, from its input alone; the largest
    difference as a fraction of the largest output.
    """

    is_float: bool
    model: str
    size: int
    engine: str
    path: str
    layers: int
    codes: int
    differing_codes: int
    floats: int
    differing_floats: int
    largest_ulp: float
    float_ops: tuple[str, ...]
    parts: int
    moved_codes: int
    output_differing: int
    output_fraction: float
    wrong: tuple[str, ...]


def to_markdown(rows: Sequence[FxRow]) -> str:
    """Returns a line per row, and below what is wrong, if anything is."""
    lines = [
        "| model | image | engine | layers | codes: differ | floats: differ | largest ulp, in | at ties | output |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += map(line_of, rows)
    wrong = [f"- {row.model}, {row.engine}, {row.path}: wrong: {', '.join(row.wrong)}" for row in rows if row.wrong]
    return "\n".join([*lines, *([""] if wrong else []), *wrong])


def line_of(row: FxRow) -> str:
    """Returns a row of the table."""
    where = f"{row.largest_ulp:.2g}, {', '.join(row.float_ops)}" if row.differing_floats else "0"
    output = "equal" if not row.output_differing else f"{row.output_fraction:.1e} of the range"
    return (
        f"| {row.model} | {row.size} | {row.engine}, {row.path} | {row.layers} | {row.codes}: {row.differing_codes} | "
        f"{row.floats}: {row.differing_floats} | {where} | {row.moved_codes} | {output} |"
    )


def read_rows(path: Path) -> dict[Key, FxRow]:
    """Returns the rows of a file by what they are of, none if there is no file."""
    found = json.loads(path.read_text()) if path.exists() else []
    rows = [FxRow(**{**row, "float_ops": tuple(row["float_ops"]), "wrong": tuple(row["wrong"])}) for row in found]
    return {(row.is_float, row.model, row.engine, row.path, row.size): row for row in rows}


def write_page(path: Path, rows: Sequence[FxRow]) -> None:
    """Writes the rows as JSON, and as a page beside it."""
    rows = sorted(rows, key=lambda row: row.is_float)
    with atomic_write(path) as file:
        file.write((json.dumps([asdict(row) for row in rows], indent=1) + "\n").encode())
    parts = [_ABOUT]
    for title, is_float in ((_QUANTIZED, False), (_FLOAT, True)):
        chosen = [row for row in rows if row.is_float == is_float]
        if chosen:
            parts.append(f"{title}\n{to_markdown(chosen)}\n")
    with atomic_write(path.with_suffix(".md")) as file:
        file.write("\n".join(parts).encode())
