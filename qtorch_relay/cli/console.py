"""What commands print: tables and JSON on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

# Where it is not a terminal rich assumes 80 columns and folds tables; a file or a pipe has no width.
_FILE_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """Returns a console for standard output or standard error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _FILE_WIDTH, highlight=False)


def print_json(data: Any) -> None:
    """Prints data as JSON."""
    print(json.dumps(data, indent=1))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table; columns whose name ends in '>' are aligned to the right."""
    table = Table()
    for column in columns:
        table.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    out = console()
    out.print(title, style="table.title", markup=False, soft_wrap=True)  # rich folds a title at the table's width
    out.print(table)


def note(text: str) -> None:
    """Prints a line on standard error."""
    console(stderr=True).print(text, markup=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Yields a display of progress bars on standard error; they stay when the work is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bars:
        yield bars


@contextmanager
def working(description: str, part: str = "") -> Iterator[Callable[[float], None]]:
    """Shows a bar without an end while the block runs.

    Yields what tells how much of a part of the work is done, from 0 to 1, which then has a bar of its own.
    """
    with progress() as bars:
        task = bars.add_task(description, total=None, detail="")
        parts: list[TaskID] = []

        def tell(share: float) -> None:
            if not parts:
                parts.append(bars.add_task(part, total=1, detail=""))
            bars.update(parts[0], completed=share)

        yield tell
        bars.update(task, total=1, completed=1)
