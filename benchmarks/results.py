"""What `make bench` measures, as data that is written as JSON and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

OURS, PYTORCH, ONNX_RUNTIME = "qtorch_relay", "PyTorch", "ONNX Runtime"
FLOAT = " float"
ENGINES = ("fbgemm", "onednn", "x86", "qnnpack")


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds by program; missing says why a program is not among them.

    macs: multiply-accumulates of a call; peak_gmacs: those the dot-product instruction reaches in a second on all
    threads, by a program of as many of them and nothing else, which takes turns with the others.
    """

    model: str
    batch: int
    num_threads: int
    latency_ms: dict[str, float]
    missing: dict[str, str]
    macs: int
    peak_gmacs: float

    @property
    def best_peer(self) -> str:
        """The fastest int8 program but ours."""
        return min(self.peers, key=self.peers.__getitem__)

    @property
    def peers(self) -> dict[str, float]:
        """The latencies of the int8 programs but ours."""
        return {name: ms for name, ms in self.latency_ms.items() if name != OURS and not name.endswith(FLOAT)}

    @property
    def times_as_fast(self) -> float:
        """How many times as fast as the best peer ours is."""
        return self.times(self.best_peer)

    def times(self, program: str) -> float:
        """Returns how many times as fast as a program ours is."""
        return self.latency_ms[program] / self.latency_ms[OURS]

    @property
    def share_of_peak(self) -> float:
        """The share of the dot-product peak that ours reaches over the whole network."""
        return self.macs / self.latency_ms[OURS] / 1e6 / self.peak_gmacs

    @property
    def key(self) -> tuple[str, int, int]:
        """What the row is about."""
        return self.model, self.batch, self.num_threads


@dataclass(frozen=True)
class Start:
    """One program's start in a process of its own, on one network; medians over several processes.

    import_s: importing what runs the model; load_s: loading the bundle, or creating the session; process_s: from the
    start of the process to the first output, with the interpreter and the imports. resident_mib, peak_mib: of the whole
    process, after some calls and at most; libraries_mib: after the imports.
    """

    program: str
    import_s: float
    load_s: float
    first_run_s: float
    process_s: float
    libraries_mib: float
    resident_mib: float
    peak_mib: float

    @property
    def start_s(self) -> float:
        """Seconds from the file to the first output, the imports done."""
        return self.load_s + self.first_run_s


@dataclass(frozen=True)
class Compile:
    """What compiling one network takes: in a process of its own, libraries_mib after the imports."""

    from_pytorch_s: float
    compile_s: float
    save_s: float
    libraries_mib: float
    peak_mib: float
    bundle_mb: float

    @property
    def total_s(self) -> float:
        """Seconds from the saved .pt to the program, the imports done."""
        return self.from_pytorch_s + self.compile_s


@dataclass(frozen=True)
class Concurrency:
    """Calls in a second of one CompiledModel on one thread each, by how many Python threads call it."""

    model: str
    calls_per_s: dict[int, float]


@dataclass(frozen=True)
class Results:
    """All of a run: where, when and how, and what was measured. cost_model is the network of starts and compile."""

    cpu: str
    cpus: int
    system: str
    target: str
    date: str
    command: str
    rounds: int
    versions: dict[str, str]
    rows: tuple[Row, ...] = ()
    cost_model: str = "resnet50"
    starts: tuple[Start, ...] = ()
    compile: Compile | None = None
    concurrency: tuple[Concurrency, ...] = ()

    def with_row(self, row: Row) -> Results:
        """Returns the results with a row, in the place of the one about the same."""
        if all(old.key != row.key for old in self.rows):
            return replace(self, rows=(*self.rows, row))
        return replace(self, rows=tuple(row if old.key == row.key else old for old in self.rows))


def write(results: Results, path: Path) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1) + "\n")


def read(path: Path) -> Results:
    """Returns the results that a file has."""
    data = json.loads(path.read_text())
    concurrency = [
        Concurrency(item["model"], {int(count): rate for count, rate in item["calls_per_s"].items()})
        for item in data.pop("concurrency")
    ]
    compiled = data.pop("compile")
    return Results(
        **{item.name: data[item.name] for item in fields(Results) if isinstance(data.get(item.name), (str, int, dict))},
        rows=_all(Row, data["rows"]),
        starts=_all(Start, data["starts"]),
        compile=None if compiled is None else Compile(**compiled),
        concurrency=tuple(concurrency),
    )


def _all(kind: Any, items: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(kind(**item) for item in items)
