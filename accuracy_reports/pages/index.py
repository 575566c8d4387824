"""The index over a folder of runs: index.html for a browser, README.md for whoever reads the repository."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accuracy_reports.layers.blame import blame, own_sqnr_db
from accuracy_reports.pages.html import fill, percent
from accuracy_reports.record import FLOAT, INT8, ONNX_RUNTIME, OURS, Program, Record, read_record
from accuracy_reports.runs.coordinator import RECORD
from qtorch_relay.output_files import atomic_write

# Top-1 in percent on ImageNet's 50 000 validation images, Torch and TVM's Relay importer, each after quantization.
# Source: github.com/Edgecortix-Inc/pytorch_quantization, tvm_qnn_evaluation (2020).
PUBLISHED = {
    "resnet18": (69.45, 69.54),
    "resnet50": (75.87, 75.82),
    "mobilenet_v2": (70.66, 70.65),
    "inception_v3": (77.12, 76.88),
    "googlenet": (69.64, 69.58),
}
OTHER_PAGES = ("calibration.md",)
_ORDER = ("digits",)


@dataclass(frozen=True)
class Row:
    """What the index says of a run, as text; differs: whether a code or an answer is not PyTorch int8's."""

    name: str
    images: int
    accuracy: str
    published: str
    codes: str
    answers: str
    onnx_runtime: str
    elements: str
    worst: str
    speed: str
    differs: bool


def row_of(name: str, record: Record) -> Row:
    """Returns the row of a run."""
    ours, int8, onnx = (record.program(program) for program in (OURS, INT8, ONNX_RUNTIME))
    tops = [percent(found.top1) for found in map(record.program, (FLOAT, INT8, OURS)) if found and found.top1]
    elements, worst, layers_differ = "not compared", "-", False
    if record.layers is not None:
        differing = sum(layer.compiler.differing for layer in record.layers.layers)
        total = sum(layer.compiler.of for layer in record.layers.layers)
        elements = f"{differing:,} of {total:,} in {len(record.layers.layers)} layers"
        layers_differ = differing > 0
        lossy = blame(record.layers).quantization
        worst = f"{lossy[0].label}, {own_sqnr_db(lossy[0]):.1f} dB" if lossy else "-"
    speed = "-"
    if ours is not None and int8 is not None and ours.latency_ms and int8.latency_ms:
        speed = f"{int8.latency_ms / ours.latency_ms:.2f}"
    codes = None if ours is None else ours.differing
    published = PUBLISHED.get(name) if len(record.dataset.classes) == 1000 else None
    return Row(
        name,
        record.dataset.images,
        " / ".join(tops) or "-",
        "-" if published is None else f"{published[0]} / {published[1]}",
        "-" if codes is None else f"{codes.count:,} of {codes.of:,}",
        _answers(ours),
        _answers(onnx),
        elements,
        worst,
        speed,
        layers_differ or codes is None or codes.count > 0,
    )


def _answers(program: Program | None) -> str:
    """Returns on how many images a program answers as PyTorch int8, and how many of its codes differ."""
    if program is None or program.agreement is None:
        return "-"
    same = f"{program.agreement.count:,} of {program.agreement.of:,}"
    if program.name == OURS or program.differing is None:
        return same
    return f"{same}; {percent(program.differing)} of its {program.outputs_are} differ"


def write_index(folder: Path) -> None:
    """Writes index.html and README.md over the records in the folders of a folder."""
    paths = sorted(folder.glob(f"*/{RECORD}"), key=lambda path: (path.parent.name not in _ORDER, path.parent.name))
    records = {path.parent.name: read_record(path) for path in paths}
    rows = [row_of(name, record) for name, record in records.items()]
    others = [name for name in OTHER_PAGES if (folder / name).exists()]
    environments = [record.environment for record in records.values()]
    dates = sorted({environment.date.partition("T")[0] for environment in environments})
    page = fill(
        "index.html.j2",
        title="Results",
        rows=rows,
        columns=columns_of(rows),
        environments=environments,
        dates=dates,
        others=others,
    )
    for name, text in {"index.html": page, "README.md": to_markdown(rows, records, others)}.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())


# Titles, and what they mean; the keys are Row's.
COLUMNS = {
    "name": ("network", "opens its report"),
    "images": ("images", "how many"),
    "accuracy": ("top-1: float / int8 / ours", "of the labels"),
    "published": ("published: Torch / Relay", "Edgecortix, on 50 000 images of ImageNet, 2020"),
    "codes": ("output codes that differ", "ours from PyTorch int8's"),
    "answers": ("answers as PyTorch int8", "first answers that are the same"),
    "onnx_runtime": ("ONNX Runtime: the same", "first answers that are PyTorch int8's"),
    "elements": ("elements that differ", "ours from PyTorch int8's, over all layers"),
    "worst": ("worst layer, alone", "lowest SQNR, float to PyTorch int8"),
    "speed": ("speed / PyTorch int8's", "medians of the same run"),
}
_OPTIONAL = ("accuracy", "published", "speed")


def columns_of(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Returns the columns of an index; those that nothing is known of are left out."""
    unknown = {key for key in _OPTIONAL if all(getattr(row, key) == "-" for row in rows)}
    return {key: titles for key, titles in COLUMNS.items() if key not in unknown}


def to_markdown(rows: Sequence[Row], records: dict[str, Record], others: Sequence[str]) -> str:
    """Returns the index as Markdown."""
    columns = columns_of(rows)
    lines = [
        "# Results",
        "",
        "Made by `make reports`; each folder has `report.html` (download it, it needs nothing else) and the same as "
        "`record.json`. Networks but the digits' have seeded weights and images: they show whether codes are "
        "PyTorch's, not how accurate a trained network is.",
        "",
        f"| {' | '.join(title for title, _ in columns.values())} |",
        "|---" * len(columns) + "|",
    ]
    for row in rows:
        cells = (f"[{row.name}]({row.name}/report.html)" if key == "name" else getattr(row, key) for key in columns)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    environments = [record.environment for record in records.values()]
    lines += [
        f"\n{cpu}, {threads} thread(s) a program; commit {commit or 'unknown'}."
        for cpu, threads, commit in dict.fromkeys((e.cpu, e.num_threads, e.commit) for e in environments)
    ]
    lines += [f"\nMore: [{name}]({name})" for name in others]
    return "\n".join(lines) + "\n"
