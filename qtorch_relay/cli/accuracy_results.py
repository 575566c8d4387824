"""What `accuracy` and `merge` leave: a folder with record.json and report.html, and a table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qtorch_relay.cli.console import note, print_table
from qtorch_relay.cli.data_options import check_installed
from qtorch_relay.errors import OutputPathError, QTorchRelayError
from qtorch_relay.output_files import atomic_write

if TYPE_CHECKING:
    from accuracy_reports.record import Program, Record, Share

DIFFERS_STATUS = 1
_SHOWN_CHANGES = 10


def check_extra() -> None:
    """Raises InvalidInputError where what only these commands need is not installed."""
    check_installed("jinja2", "PIL", "pydantic")


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Makes a folder unless it is there, for a block that writes into it; if the block is refused, none is left behind.

    Raises:
        OutputPathError: there cannot be such a folder.
    """
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise OutputPathError(f"cannot write to {folder}: it is a file; give the name of a folder") from None
    except FileNotFoundError:
        raise OutputPathError(
            f"cannot write {folder}: the folder {folder.parent} does not exist; make it first"
        ) from None
    except OSError as error:
        raise OutputPathError(f"cannot write {folder}: {error.strerror}") from error
    try:
        yield
    except QTorchRelayError:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise


def finish(record: Record, folder: Path, *, as_json: bool) -> None:
    """Writes the record and its report, prints it, and exits with status 1 if an answer or code is not PyTorch's."""
    from accuracy_reports import record as records
    from accuracy_reports.pages.html import render
    from accuracy_reports.runs.coordinator import RECORD, REPORT

    records.write_record(record, folder / RECORD)
    with atomic_write(folder / REPORT) as file:
        file.write(render(record).encode())
    if as_json:
        print(records.to_json(record).decode(), end="")
    else:
        _print(record)
        print(f"{folder / RECORD}, {folder / REPORT}")
    ours = record.program(records.OURS)
    if ours is not None and any(_differs(share) for share in (ours.differing_codes, ours.differing_images)):
        raise typer.Exit(DIFFERS_STATUS)
    if ours is not None and ours.agreement is not None and ours.agreement.count != ours.agreement.of:
        raise typer.Exit(DIFFERS_STATUS)


def _differs(share: Share | None) -> bool:
    return share is not None and share.count > 0


def _print(record: Record) -> None:
    columns = (
        "program",
        "top-1>",
        "top-5>",
        "answers as PyTorch int8>",
        "codes that differ>",
        "latency (median)>",
        "images/s>",
    )
    title = (
        f"{record.model.name} on {record.dataset.name}: {record.dataset.images} images, {len(record.broken)} broken, "
        f"engine {record.model.engine}, target {record.model.target}"
    )
    print_table(title, columns, [_cells(program) for program in record.programs if program.problem is None])
    for program in record.programs:
        if program.problem is not None:
            note(f"{program.name}: {program.problem}")
    for broken in record.broken:
        note(f"broken: {broken.id}: {broken.reason}")
    for change in record.changed[:_SHOWN_CHANGES]:
        names = record.dataset.classes
        label = "" if change.label is None else f" where {names[change.label]} is right"
        answers = f"{names[change.found]} in place of {names[change.expected]}{label}"
        note(f"{change.program}: {answers}: {change.images} x")


def _cells(program: Program) -> tuple[str, ...]:
    codes, latency = program.differing_codes, program.latency_ms
    floats = program.differing_floats
    differing = "" if codes is None else f"{codes.count} of {codes.of}"
    if floats is not None:
        differing = f"{floats.count} of {floats.of} floats"
    return (
        program.name,
        _share(program.top1),
        _share(program.top5),
        "" if program.agreement is None else f"{program.agreement.count} of {program.agreement.of}",
        differing,
        "" if latency is None else f"{latency:.3f} ms",
        "" if program.images_per_s is None else f"{program.images_per_s:.1f}",
    )


def _share(share: Share | None) -> str:
    """Returns a share with its 95 % interval."""
    return "" if share is None else f"{share.value:.2%} ({share.low:.2%} to {share.high:.2%})"
