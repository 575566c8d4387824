"""`make calibration`: observers, equalization, bias correction and training compared, into results/calibration.*."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from accuracy_reports.calibration_tasks import Task, make_tasks
from accuracy_reports.environment import describe_environment
from calibration.evaluate import Expected, evaluate, expected_outputs
from calibration.qat import Training, train_quantized
from calibration.quantize import Options, Quantized, quantize
from calibration.recipes import scheme_of
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.output_files import atomic_write

RESULTS = Path(__file__).parent / "results"
COMMAND = "python -m accuracy_reports.calibration_report"
ENGINES = ("fbgemm", "onednn")
OBSERVERS = (
    "minmax",
    "moving_average",
    "histogram",
    "percentile:99",
    "percentile:99.9",
    "percentile:99.99",
    "entropy",
    "mse",
)


@dataclass(frozen=True)
class Method:
    """A way to quantize: a recipe, its observer, and what is done to the weights first."""

    recipe: str
    observer: str | None = None
    equalize: bool = False
    correct_bias: bool = False

    def __str__(self) -> str:
        words = [
            self.observer or "",
            "equalized" if self.equalize else "",
            "bias corrected" if self.correct_bias else "",
        ]
        return ", ".join(word for word in words if word) or "trained"


@dataclass(frozen=True)
class Row:
    """What a method achieved on a task: shares of right answers, and the distortion of the outputs in dB."""

    task: str
    engine: str
    recipe: str
    method: str
    float_accuracy: float
    accuracy: float
    sqnr_db: float


def methods() -> Iterator[Method]:
    """Yields all methods that are compared."""
    for recipe in ("static_w8c_a8", "static_w8t_a8"):
        for observer in OBSERVERS:
            yield Method(recipe, observer)
        yield Method(recipe, "entropy", equalize=True)
        yield Method(recipe, "entropy", correct_bias=True)
        yield Method(recipe, "entropy", equalize=True, correct_bias=True)
    yield Method("qat_w8c_a8")


def compare(task: Task, engine: str, method: Method, expected: Expected) -> Row:
    """Returns a row. expected: the float network's outputs on the task's test data."""
    quantized = _quantize(task, engine, method)
    with quantized_engine(engine):
        found = evaluate(quantized.model, task.test, expected, "")
    plain = expected.answers()
    if plain.accuracy is None or found.accuracy is None:
        raise ValueError(f"task {task.name} has no labels")
    return Row(task.name, engine, method.recipe, str(method), plain.accuracy, found.accuracy, found.sqnr_db)


def _quantize(task: Task, engine: str, method: Method) -> Quantized:
    scheme = scheme_of(method.recipe, engine, method.observer)
    if method.recipe.startswith("qat"):
        return train_quantized(task.network, scheme, task.calibration, Training(epochs=4, learning_rate=3e-4), "fx")
    options = Options("fx", method.equalize, method.correct_bias)
    return quantize(task.network, scheme, task.calibration, options)


def to_markdown(tasks: Iterable[Task], rows: list[Row], environment: dict[str, Any]) -> str:
    """Returns the comparison as Markdown: a table for each task, its engines side by side."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if name != "pillow")
    lines = [
        "# Calibration methods compared",
        "",
        f"Right answers on data that was not calibrated with, and the SQNR of the logits against the float network's. "
        f"Made by `make calibration` ({environment['date'][:10]}, {environment['cpu']}, {versions}). "
        "Seeds are fixed; the highest accuracy of a column is bold. Activations have 7 bits on fbgemm, 8 on onednn.",
    ]
    for task in tasks:
        of_task = [row for row in rows if row.task == task.name]
        samples = sum(len(batch.inputs[0]) for batch in task.test)
        best = {engine: max(row.accuracy for row in of_task if row.engine == engine) for engine in ENGINES}
        lines += [
            "",
            f"## {task.name}",
            "",
            f"{task.summary[0].upper()}{task.summary[1:]}. Float: {of_task[0].float_accuracy:.2%} of {samples} images.",
            "",
            f"| recipe | method | {' | '.join(f'{engine}: accuracy | SQNR' for engine in ENGINES)} |",
            f"|---|---|{'---|---|' * len(ENGINES)}",
        ]
        for recipe, method in dict.fromkeys((row.recipe, row.method) for row in of_task):
            by_engine = {row.engine: row for row in of_task if (row.recipe, row.method) == (recipe, method)}
            cells = " | ".join(_cells(by_engine[engine], best[engine]) for engine in ENGINES)
            lines.append(f"| {recipe} | {method} | {cells} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row, best: float) -> str:
    accuracy = f"**{row.accuracy:.2%}**" if row.accuracy == best else f"{row.accuracy:.2%}"
    return f"{accuracy} | {row.sqnr_db:.1f} dB"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the comparison and writes it."""
    parser = argparse.ArgumentParser(prog="python -m accuracy_reports.calibration_report", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="default: %(default)s")
    output: Path = parser.parse_args(arguments).output
    warnings.filterwarnings("ignore", module=r"torch(\.|$)")
    torch.set_num_threads(1)
    console = Console(stderr=True)
    console.print("training the tasks' networks")
    tasks = make_tasks()
    expected = {task.name: expected_outputs(task.network, task.test) for task in tasks}
    todo = [(task, engine, method) for task in tasks for engine in ENGINES for method in methods()]
    rows = [
        compare(task, engine, method, expected[task.name])
        for task, engine, method in track(todo, "calibrating", console=console)
    ]
    environment = asdict(describe_environment(COMMAND, 1))
    data = {"version": 1, "environment": environment, "rows": [asdict(row) for row in rows]}
    output.mkdir(exist_ok=True)
    for name, text in (
        ("calibration.json", json.dumps(data, indent=1) + "\n"),
        ("calibration.md", to_markdown(tasks, rows, environment)),
    ):
        with atomic_write(output / name) as file:
            file.write(text.encode())
    print(to_markdown(tasks, rows, environment))
    return 0


if __name__ == "__main__":
    sys.exit(main())
