"""`make relay-era`: networks as Relay text in a real TVM 0.17, and as its own importer brings them in.

Needs QTORCH_RELAY_ERA_PYTHON. Every run is kept in accuracy_reports/relay_era/results.json as soon as it ends; runs
that are there already are not made again. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from accuracy_reports.relay_era.job import VARIABLE, interpreter
from accuracy_reports.relay_era.networks import DEFAULT, EXACT, LAYERS, PEER, PROGRAMS, Array, Run, run_network
from accuracy_reports.relay_era.rows import read_rows, rows_in_the_matrix, rows_to_markdown
from accuracy_reports.zoo import IMAGE_SIZES, quantized_model, random_images
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.demo.digits import FloatLogits, load_digits, quantize, train
from qtorch_relay.errors import told_and_exited
from qtorch_relay.output_files import atomic_write

RESULTS = Path(__file__).with_name("results.json")
DIGITS = "digits (the demo's CNN)"
NETWORKS = (DIGITS, *IMAGE_SIZES)
LAYER_BAR = OUTPUT_BAR = 0.001


def read_runs(path: Path = RESULTS) -> list[Run]:
    """Returns the runs that are kept in a file."""
    return [Run(**row) for row in json.loads(path.read_text())["runs"]] if path.exists() else []


def keep(runs: Sequence[Run], path: Path = RESULTS) -> None:
    """Writes runs to a file, and their table beside it."""
    with atomic_write(path) as file:
        file.write((json.dumps({"runs": [run.to_json() for run in runs]}, indent=1) + "\n").encode())
    with atomic_write(path.with_suffix(".md")) as file:
        file.write(page(runs).encode())


def network_and_images(name: str, engine: str, size: int | None) -> tuple[torch.nn.Module, Array]:
    """Returns a quantized network and images that it was not calibrated with: one, or the digits' test set."""
    if name != DIGITS:
        model = quantized_model(name, engine, image_size=size)
        return model.module, random_images(1, model.input_shape[-1], seed=1).numpy()
    digits = load_digits()
    with quantized_engine(engine):
        network = quantize(train(digits, lambda steps, _: steps), digits, engine, lambda steps, _: steps)
    return FloatLogits(network).eval(), digits.test_images.numpy()


def to_markdown(runs: Sequence[Run]) -> str:
    """Returns the page of the table."""
    lines = [
        "# Relay text in a TVM 0.17, beside that TVM's own importer",
        "",
        "Made by `make relay-era`: one seeded image through seeded networks (the demo's CNN: its test set), engine",
        "fbgemm, target `llvm`, opt_level 3. Outputs are compared as codes, end to end: there one code that differs",
        "early moves many after it. `--requantize qnn` writes what toolchains match, and costs codes: with `each layer",
        "alone` every layer reads PyTorch's codes, which tells the cost itself. Seconds are those of a shared machine,",
        "whose load was another from row to row: they tell the order of magnitude, and compare nothing.",
        "",
        "| network | image | program | codes that differ | largest | same top-1 | import s | build s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = {program: place for place, program in enumerate(PROGRAMS)}
    for run in sorted(runs, key=lambda run: (NETWORKS.index(run.network), run.image_size, order[run.program])):
        about = f"| {run.network} | {run.image_size} | {run.program} |"
        if run.error:
            lines.append(f"{about} not imported: {run.error[:160]} | | | | |")
            continue
        share = f"{run.differing} of {run.elements} ({100 * run.differing / run.elements:.3g} %)"
        if run.same_as:
            lines.append(f"{about} {share}: the very text of `{run.same_as}`, run once | | | | |")
            continue
        top1 = "" if run.program == LAYERS else ("yes" if run.same_top1 else "no")
        seconds = run.seconds.get("text", 0.0) + run.seconds["import"]
        lines.append(f"{about} {share} | {run.largest} | {top1} | {seconds:.1f} | {run.seconds['build']:.0f} |")
    return "\n".join([*lines, "", *_imported(runs), "", *_bars(runs), ""])


def _imported(runs: Sequence[Run]) -> list[str]:
    """Returns how many networks each importer takes, and on how many ours differs in fewer codes."""
    found = {(run.network, run.program): run for run in runs if not run.error}
    ours, peers = ([name for name in NETWORKS if (name, program) in found] for program in (DEFAULT, PEER))
    less = [name for name in ours if name in peers and found[name, DEFAULT].differing < found[name, PEER].differing]
    return [
        f"Of {len(NETWORKS)} networks qtorch_relay imports {len(ours)}, TVM's own importer {len(peers)}; qtorch_relay",
        f"differs in fewer codes on {len(less)} of the {len(set(ours) & set(peers))} that both import.",
    ]


def page(runs: Sequence[Run]) -> str:
    """Returns the page: the networks, and the rows of the op matrix that are kept."""
    rows = read_rows()
    return to_markdown(runs) + ("\n" + "\n".join(rows_to_markdown(rows, rows_in_the_matrix())) if rows else "")


def misses(runs: Sequence[Run]) -> list[str]:
    """Returns a line for every bar that a run misses.

    `--requantize qnn` has one for each layer alone: end to end a code that differs early moves many after it.
    """
    found = []
    peers = {(run.network, run.image_size): run for run in runs if run.program == PEER}
    for run in runs:
        name = f"{run.network}, {run.image_size}, {run.program}"
        if run.program != PEER and run.error:
            found.append(f"{name}: {run.error[:160]}")
        elif run.program == EXACT and (run.differing or not run.same_top1):
            found.append(f"{name}: {run.differing} codes differ")
        elif run.program == LAYERS and run.differing > LAYER_BAR * run.elements:
            found.append(f"{name}: {run.differing} of {run.elements} codes differ")
        elif run.program == DEFAULT:
            if run.differing > OUTPUT_BAR * run.elements:
                found.append(f"{name}: {run.differing} of {run.elements} codes differ")
            peer = peers.get((run.network, run.image_size))
            if not run.same_top1:
                found.append(f"{name}: another top-1")
            if peer is not None and not peer.error and run.differing > peer.differing:
                found.append(f"{name}: {run.differing} codes differ, {PEER}'s {peer.differing}")
    return found


def _bars(runs: Sequence[Run]) -> list[str]:
    made = {(run.network, run.program) for run in runs}
    missing = [f"{name}: {program}" for name in NETWORKS for program in PROGRAMS if (name, program) not in made]
    lines = ["Bars: at most 0.1 % of codes by default, none with `--exact`, for both the same top-1; by default fewer"]
    lines += ["codes than TVM's own importer; at most 0.1 % of a layer alone with `--requantize qnn`, which end to end"]
    lines += ["may give another top-1, as the table tells."]
    lines += ["", *([f"- missed: {line}" for line in misses(runs)] or ["No run misses one."])]
    return lines + (["", f"Not run yet: {'; '.join(missing)}."] if missing else [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the runs that the arguments select and are not kept yet; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.relay_era", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--image-size", type=int, help="height and width; default: the network's own")
    parser.add_argument("--again", action="store_true", help="make runs again that are kept")
    options = parser.parse_args(arguments)
    if not interpreter():
        print(f"error: set {VARIABLE} to the Python of a TVM that has Relay (0.17)", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", module=r"torch(vision)?(\.|$)")
    runs = read_runs()
    with Progress(console=Console(stderr=True)) as bars:
        for name in bars.track(options.networks, description="networks"):
            size = None if name == DIGITS else (options.image_size or IMAGE_SIZES[name])
            kept = {run.program for run in runs if run.network == name and size in (None, run.image_size)}
            todo = [program for program in options.programs if options.again or program not in kept]
            if not todo:
                continue
            module, images = network_and_images(name, "fbgemm", size)
            for run in run_network(name, module, images, "fbgemm", todo):
                key = (run.network, run.image_size, run.program)
                runs = [old for old in runs if (old.network, old.image_size, old.program) != key] + [run]
                keep(runs)
                bars.console.print(f"{name}, {run.program}: {run.error[:100] or f'{run.differing} differ'}")
    keep(runs)
    print(page(runs), end="")
    return 1 if misses(runs) else 0


if __name__ == "__main__":
    with told_and_exited():
        sys.exit(main())
