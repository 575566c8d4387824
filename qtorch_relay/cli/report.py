"""`qtorch-relay report`: a run as HTML, or two runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtorch_relay.cli.console import print_json, print_table
from qtorch_relay.cli.options import Json
from qtorch_relay.errors import InvalidInputError
from qtorch_relay.output_files import atomic_write, check_output_path

if TYPE_CHECKING:
    from accuracy_reports.gate import Check

PAST_LIMITS_STATUS = 1
_RECORD, _REPORT = "record.json", "report.html"


def report(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORD...", help="record.json of a run, or its folder; two of them are compared."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The HTML to write. One run: report.html beside its record."
        ),
    ] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Limits (TOML) for two runs. Default: accuracy_reports/thresholds.toml."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a run as one HTML file, or compare two runs. Exit status 1 if the second one is past a limit.

    The HTML needs no network and can be mailed or kept. A file of limits has the tables accuracy, codes, layers and
    latency; what it leaves out is not checked.

    Example: qtorch-relay report runs/digits -o digits.html
    Example: qtorch-relay report main.json change.json --thresholds thresholds.toml
    """
    paths = [path / _RECORD if path.is_dir() else path for path in records]
    if len(paths) > 2:
        raise InvalidInputError(
            f"{len(paths)} records are given; accepted are one, to draw it, or two, to compare them"
        )
    if len(paths) == 1:
        if thresholds is not None:
            raise InvalidInputError("--thresholds compares two runs; give a second record, or leave it out")
        _draw(paths[0], output or paths[0].with_name(_REPORT), as_json)
        return
    _compare(paths[0], paths[1], thresholds, output, as_json)


def _draw(path: Path, output: Path, as_json: bool) -> None:
    from accuracy_reports.pages.html import render
    from accuracy_reports.record import read_record

    record = read_record(path)
    _write(output, render(record))
    size_bytes = output.stat().st_size
    if as_json:
        print_json({"output": str(output), "size_bytes": size_bytes})
        return
    print(
        f"{output}: {record.model.name} on {record.dataset.images} images; {size_bytes / 1e3:.0f} kB, for any browser"
    )


def _compare(old_path: Path, new_path: Path, thresholds: Path | None, output: Path | None, as_json: bool) -> None:
    from accuracy_reports.gate import compare_records, read_thresholds
    from accuracy_reports.pages.html import render_checks
    from accuracy_reports.record import read_record

    if output is not None:
        check_output_path(output)
    old, new = read_record(old_path), read_record(new_path)
    checks = compare_records(old, new, read_thresholds(thresholds))
    if output is not None:
        _write(output, render_checks(old, new, checks))
    failed = [check for check in checks if not check.passes]
    if as_json:
        print_json({"checks": [_json_of(check) for check in checks], "failed": len(failed)})
    else:
        print_table(
            f"{old_path} to {new_path}",
            ("check", "before>", "now>", "worse by>", "limit>", ""),
            [_cells(check) for check in checks],
        )
        print(f"{len(failed)} of {len(checks)} checks are past their limit")
        for check in failed:
            print(f"- {check.sentence()}")
    if failed:
        raise typer.Exit(PAST_LIMITS_STATUS)


def _write(output: Path, text: str) -> None:
    with atomic_write(output) as file:
        file.write(text.encode())


def _json_of(check: Check) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(check) | {"passes": check.passes}


def _cells(check: Check) -> tuple[str, ...]:
    change = "-" if check.change is None else f"{check.change:.4g} {check.unit}"
    limit = f"{check.limit:g} {check.unit}"
    return check.what, check.old, check.new, change, limit, "" if check.passes else "past the limit"
