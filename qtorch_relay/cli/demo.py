"""`qtorch-relay demo`: the whole path on real images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtorch_relay.cli.console import note, print_json, print_table, progress
from qtorch_relay.cli.options import Json
from qtorch_relay.demo import INT8_FILE, KEPT
from qtorch_relay.output_files import check_output_path

if TYPE_CHECKING:
    from qtorch_relay.demo.measure import Row

DIFFERS_STATUS = 1


def demo(
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="fbgemm, onednn, x86 or qnnpack.")] = "fbgemm",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads for every program.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Keep the models, the bundle and an image here, to try the other commands on.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, quantize, compile and check a small CNN on real images. Exit status 1 if a code differs from PyTorch's.

    Example: qtorch-relay demo -o .
    """
    if output is not None:
        for name in KEPT:
            check_output_path(output / name)
    from qtorch_relay.demo.measure import run_demo

    with progress() as bars:

        def track(items: Iterable[Any], description: str) -> Iterator[Any]:
            known = list(items)
            task = bars.add_task(description, total=len(known), detail="")
            for i, item in enumerate(known, 1):
                yield item
                bars.update(task, completed=i, detail=f"{i}/{len(known)}")

        result = run_demo(engine, threads, track, output)
    if as_json:
        print_json(result.to_json())
    else:
        print_table(
            f"{result.images} test images, batch 1, {result.num_threads} thread(s), engine {result.engine}, "
            f"target {result.target}",
            ("program", "accuracy>", "latency (median)>", f"differing codes of {result.codes}>"),
            [_cells(row) for row in result.rows],
        )
        for message in result.messages:
            note(message)
        verdict = "every code and every float equals" if result.is_exact else "there are outputs that differ from"
        print(f"{verdict} PyTorch's int8 model ({result.engine})")
        if output is None:
            note("to try the other commands on this network: qtorch-relay demo -o .")
        else:
            note(f"{output} has {', '.join(KEPT)}; next: qtorch-relay compare {output / INT8_FILE}")
    if not result.is_exact:
        raise typer.Exit(DIFFERS_STATUS)


def _cells(row: Row) -> tuple[str, str, str, str]:
    if row.accuracy is None or row.latency_ms is None:
        return row.program, "-", "-", str(row.problem)
    differing = "-" if row.differing is None else str(row.differing)
    return row.program, f"{row.accuracy:.2%}", f"{row.latency_ms * 1e3:.0f} us", differing
