"""The bars that the results are held to, each met or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from benchmarks.results import FLOAT, ONNX_RUNTIME, OURS, PYTORCH, Results, Row

NETWORKS = (
    "resnet18",
    "resnet50",
    "resnext101_32x8d",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "googlenet",
    "inception_v3",
    "shufflenet_v2_x1_0",
)
SMALL = ("mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0")
DENSE = ("resnet18", "resnet50")


@dataclass(frozen=True)
class Bar:
    """One bar: what is held to it, what is asked, what was found, and what falls short of it, empty if nothing does.

    measured: False if the results do not have all that it takes to say.
    """

    what: str
    asked: str
    found: str
    short: tuple[str, ...] = ()
    measured: bool = True

    @property
    def verdict(self) -> str:
        """Met, not met, or not measured."""
        if not self.measured:
            return "not measured"
        return "not met" if self.short else "met"


def bars(results: Results) -> list[Bar]:
    """Returns all bars."""
    one, two, large = (_rows(results, *key) for key in ((1, 1), (1, 2), (8, 1)))
    large += _rows(results, 8, 2)
    with_float = [row for row in results.rows if PYTORCH + FLOAT in row.latency_ms]
    to_float = ("times PyTorch float", lambda row: row.times(PYTORCH + FLOAT))
    of_peak = ("of the VNNI peak", lambda row: row.share_of_peak)
    return [
        _each("every network, 1 thread", 1.1, one, NETWORKS),
        _each("every network, 2 threads", 1.0, two, NETWORKS),
        _mean("geometric mean, 1 and 2 threads", 1.3, [*one, *two], NETWORKS),
        _each(f"{', '.join(SMALL)}, 1 thread", 1.5, one, SMALL),
        _each(f"{', '.join(DENSE)}, 1 thread", 0.9, one, DENSE, of_peak),
        _scaling(one, two, "resnet50", 1.8),
        _each("batch 8, every network", 1.0, large, NETWORKS),
        _each("every network against PyTorch float", 1.0, with_float, NETWORKS, to_float),
        *_compile_bars(results, 6.0, 1500.0),
        *_start_bars(results),
    ]


def _times_the_best(row: Row) -> float:
    return row.times_as_fast


TIMES_THE_BEST = ("times the best peer", _times_the_best)


def _rows(results: Results, batch: int, num_threads: int) -> list[Row]:
    return [row for row in results.rows if (row.batch, row.num_threads) == (batch, num_threads)]


def _each(
    what: str,
    least: float,
    rows: Sequence[Row],
    models: Sequence[str],
    unit_and_value: tuple[str, Callable[[Row], float]] = TIMES_THE_BEST,
) -> Bar:
    """Returns the bar that a value is at least something in every row of the models."""
    unit, value = unit_and_value
    asked = f"at least {least:g} {unit}"
    values = {_name(row): value(row) for row in rows if row.model in models}
    if not values:
        return Bar(what, asked, "", measured=False)
    short = tuple(f"{name} {found:.2f}" for name, found in values.items() if found < least)
    lowest = min(values, key=values.__getitem__)
    found = f"{values[lowest]:.2f} ({lowest}) to {max(values.values()):.2f}"
    return Bar(what, asked, found, short, measured=_all_measured(rows, models))


def _all_measured(rows: Sequence[Row], models: Sequence[str]) -> bool:
    return {row.model for row in rows} >= set(models)


def _name(row: Row) -> str:
    threads = f"{row.num_threads} thread{'' if row.num_threads == 1 else 's'}"
    return f"{row.model}, {threads}" if row.batch == 1 else f"{row.model}, batch {row.batch}, {threads}"


def _mean(what: str, least: float, rows: Sequence[Row], models: Sequence[str]) -> Bar:
    asked = f"at least {least:g} times the best peer"
    times = [row.times_as_fast for row in rows if row.model in models]
    if not times:
        return Bar(what, asked, "", measured=False)
    found = geometric_mean(times)
    short = (f"{found:.2f}",) if found < least else ()
    return Bar(what, asked, f"{found:.2f}", short, measured=_all_measured(rows, models))


def _scaling(one: Sequence[Row], two: Sequence[Row], model: str, least: float) -> Bar:
    what, asked = f"{model}, 2 threads against 1", f"at least {least:g} times as fast"
    latencies_ms = [row.latency_ms[OURS] for row in (*one, *two) if row.model == model]
    if len(latencies_ms) < 2:
        return Bar(what, asked, "", measured=False)
    found = latencies_ms[0] / latencies_ms[1]
    return Bar(what, asked, f"{found:.2f}", (f"{found:.2f}",) if found < least else ())


def _compile_bars(results: Results, most_s: float, most_mib: float) -> list[Bar]:
    compiled, model = results.compile, results.cost_model
    return [
        _most(f"compile {model}, with its import", most_s, None if compiled is None else compiled.total_s, "s"),
        _most(f"peak memory of compiling {model}", most_mib, None if compiled is None else compiled.peak_mib, "MiB"),
    ]


def _start_bars(results: Results) -> list[Bar]:
    starts, model = {start.program: start for start in results.starts}, results.cost_model
    ours, peer = starts.get(OURS), starts.get(ONNX_RUNTIME)
    if ours is None or peer is None:
        names = (f"resident memory of {model} while it runs", f"load {model} and run it once")
        return [Bar(name, f"at most {ONNX_RUNTIME}'s", "", measured=False) for name in names]
    return [
        _most(f"resident memory of {model} while it runs", peer.resident_mib, ours.resident_mib, "MiB"),
        _most(f"peak memory of {model}", peer.peak_mib, ours.peak_mib, "MiB"),
        _most(f"load {model} and run it once", peer.start_s, ours.start_s, "s"),
        _most(f"the same, with interpreter and imports, {model}", peer.process_s, ours.process_s, "s"),
    ]


def _most(what: str, most: float, found: float | None, unit: str) -> Bar:
    asked = f"at most {most:.3g} {unit}" if most < 100 else f"at most {most:.0f} {unit}"
    if found is None:
        return Bar(what, asked, "", measured=False)
    told = f"{found:.3g} {unit}" if found < 100 else f"{found:.0f} {unit}"
    return Bar(what, asked, told, (told,) if found > most else ())
