"""`make fuzz`: random quantized networks against PyTorch for as long as one likes."""

from __future__ import annotations

import random
import sys
import time
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.frontend.models import UNOPTIMIZED
from tests.fuzz.search import search

ROUND = 50


def main(
    minutes: Annotated[float, typer.Option(help="How long to go on; stop earlier with Ctrl-C.")] = 10.0,
    first_seed: Annotated[int, typer.Option("--seed", help="The first seed; any other gives other networks.")] = -1,
    kernels: Annotated[bool, typer.Option(help="Use this machine's int8 kernels; slower to compile.")] = False,
) -> None:
    """Draw quantized networks at random and compare their codes with PyTorch's; print the smallest that differs.

    A network that is printed is Python: from tests.fuzz.check import check; check(Network(...), target).
    """
    target: Any = "host" if kernels else UNOPTIMIZED
    number = random.randrange(10**6) if first_seed < 0 else first_seed
    end, done = time.monotonic() + 60 * minutes, 0
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=None)

        def count() -> None:
            nonlocal done
            done += 1
            bars.update(task, description=f"{done} networks equal PyTorch's, seed {number}")

        while time.monotonic() < end:
            try:
                search(ROUND, number, target, count)
            except KeyboardInterrupt:
                break
            except Exception:
                console.print(f"seed {number}:", markup=False)
                traceback.print_exc()
                sys.exit(1)
            number += 1
    console.print(f"{done} networks, 0 differing codes", markup=False)


if __name__ == "__main__":
    typer.run(main)
