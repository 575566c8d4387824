"""The results as a page of Markdown, as a table in the README between its `<!-- bench -->` marks, and as a picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean

from benchmarks.bars import Bar, bars
from benchmarks.results import FLOAT, ONNX_RUNTIME, OURS, PYTORCH, Results, Row

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results"
_SECTION = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.DOTALL)


def page(results: Results) -> str:
    """Returns everything that there is to say of the results."""
    title = (
        f"# Speed on {results.target}\n\nWritten by `make bench`. The machine is shared: ratios say more than times."
    )
    parts = [title, where(results), latencies(results.rows), bar_table(results), costs(results), _layers(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _layers(results: Results) -> str:
    """Returns a link to the layers, where they were measured."""
    path = RESULTS / f"{results.target}-layers.md"
    link = f"Where the time goes, call by call: [{path.name}](../benchmarks/results/{path.name})."
    return link if path.exists() else ""


def section(results: Results) -> str:
    """Returns what the README says of the results: a line for each network, and which bars are not met."""
    networks = dict.fromkeys(row.model for row in results.rows if row.batch == 1)
    header = ("network", "PyTorch int8, best engine", ONNX_RUNTIME, "OpenVINO", OURS, "times the best")
    lines = [_line(header), _line(["---"] * len(header))]
    for model in networks:
        rows = sorted(
            (row for row in results.rows if (row.model, row.batch) == (model, 1)), key=lambda r: r.num_threads
        )
        columns = zip(*(_short_cells(row) for row in rows), strict=True)
        lines.append(_line([model, *(" / ".join(values) for values in columns)]))
    threads = " / ".join(str(count) for count in sorted({row.num_threads for row in results.rows}))
    return "\n".join([*lines, "", f"Milliseconds, batch 1, {threads} threads. {_verdicts(results)}"]) + "\n"


def _short_cells(row: Row) -> list[str]:
    engines = [ms for name, ms in row.peers.items() if name.startswith(PYTORCH)]
    best_engine = f"{min(engines):.2f}" if engines else "-"
    peers = [_ms(row, name) for name in (ONNX_RUNTIME, "OpenVINO", OURS)]
    return [best_engine, *peers, f"{row.times_as_fast:.2f}"]


def _verdicts(results: Results) -> str:
    """Returns in a sentence or two how many bars were met, and which were not."""
    found = bars(results)
    met = sum(bar.verdict == "met" for bar in found)
    rest = [f"{bar.what}: {bar.asked} is {_verdict(bar)}" for bar in found if bar.verdict != "met"]
    return f"{met} of {len(found)} bars are met." + "".join(f"\n- {sentence}." for sentence in rest)


def _verdict(bar: Bar) -> str:
    return f"{bar.verdict} ({'; '.join(bar.short)})" if bar.short else bar.verdict


def update(readme: str, results: Results) -> str:
    """Returns the README with the section of these results."""
    if not _SECTION.search(readme):
        raise ValueError("the README has no <!-- bench --> and <!-- /bench --> to write between")
    return _SECTION.sub(lambda _: section(results), readme)


def publish(results: Results) -> None:
    """Writes the page and the README's section."""
    PAGE.write_text(page(results))
    README.write_text(update(README.read_text(), results))


def where(results: Results) -> str:
    """Returns a line of where, when and how the results were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    peaks = [row.peak_gmacs / row.num_threads for row in results.rows]
    peak = ""
    if peaks:
        peak = f", whose int8 dot products peak at {sorted(peaks)[len(peaks) // 2]:.0f} GMAC/s a core (as many as the "
        peak += "network has, alone, in a program that takes turns with the others)"
    return (
        f"{results.cpu}, {results.cpus} CPUs, {results.system}, target {results.target}{peak}; {results.date}; "
        f"{versions}. Milliseconds, medians of at least {results.rounds} calls that take turns in one process: "
        f"`{results.command}`."
    )


def latencies(rows: Sequence[Row]) -> str:
    """Returns the table of latencies; of PyTorch's engines the best."""
    if not rows:
        return ""
    header = ("model", "batch", "threads", "PyTorch float", "PyTorch int8, best", ONNX_RUNTIME, "OpenVINO")
    lines = [_line((*header, OURS, "times the best", "of the peak")), _line(["---"] * (len(header) + 3))]
    lines += [_line(_cells(row)) for row in rows]
    mean = geometric_mean([row.times_as_fast for row in rows])
    reasons = dict.fromkeys(f"{row.model}, {name}: {why}" for row in rows for name, why in row.missing.items())
    notes = [f"Geometric mean of all rows: {mean:.2f} times the best peer.", *(f"- {reason}" for reason in reasons)]
    return "\n".join([*lines, "", *notes])


def _cells(row: Row) -> list[str]:
    engines = {name: ms for name, ms in row.peers.items() if name.startswith(PYTORCH)}
    best = min(engines, key=engines.__getitem__, default=None)
    return [
        row.model,
        str(row.batch),
        str(row.num_threads),
        _ms(row, PYTORCH + FLOAT),
        "-" if best is None else f"{engines[best]:.2f} ({best.removeprefix(PYTORCH).strip()})",
        _ms(row, ONNX_RUNTIME),
        _ms(row, "OpenVINO"),
        _ms(row, OURS),
        f"{row.times_as_fast:.2f} ({row.best_peer})",
        f"{row.share_of_peak:.0%}",
    ]


def _ms(row: Row, program: str) -> str:
    return f"{row.latency_ms[program]:.2f}" if program in row.latency_ms else "-"


def bar_table(results: Results) -> str:
    """Returns the table of bars."""
    lines = [_line(("bar", "asked", "found: least (where) to most", "", "falls short")), _line(["---"] * 5)]
    lines += [
        _line((bar.what, bar.asked, bar.found, bar.verdict, "; ".join(bar.short) if len(bar.short) > 1 else ""))
        for bar in bars(results)
    ]
    return "\n".join(lines)


def costs(results: Results) -> str:
    """Returns the tables of starts, memory, compiling, and calls from several Python threads."""
    parts = []
    if results.starts:
        header = (f"start of {results.cost_model}, a process each", "imports s", "load s", "first run s")
        lines = [_line((*header, "whole process s", "MiB of imports", "MiB running", "MiB at most"))]
        lines += [_line(["---"] * 8)]
        for item in results.starts:
            times = (item.import_s, item.load_s, item.first_run_s, item.process_s)
            sizes = (item.libraries_mib, item.resident_mib, item.peak_mib)
            lines.append(_line((item.program, *(f"{s:.3f}" for s in times), *(f"{mib:.0f}" for mib in sizes))))
        parts.append("\n".join(lines))
    if results.compile is not None:
        cost = results.compile
        parts.append(
            f"Compiling {results.cost_model} from a saved `.pt`: import {cost.from_pytorch_s:.2f} s, compile "
            f"{cost.compile_s:.2f} s, save {cost.save_s:.2f} s ({cost.bundle_mb:.1f} MB); {cost.peak_mib:.0f} MiB at "
            f"most, {cost.libraries_mib:.0f} of them PyTorch and TVM."
        )
    parts += [
        f"{item.model}, calls a second from several Python threads, one core each: "
        + ", ".join(f"{count}: {rate:.1f}" for count, rate in item.calls_per_s.items())
        + "."
        for item in results.concurrency
    ]
    return "\n\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(results: Results, path: Path) -> None:
    """Writes a picture: how many times as fast as each peer ours is."""
    from matplotlib import pyplot

    rows = results.rows
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.3 * len(rows)), layout="constrained")
    labels = [f"{row.model}, batch {row.batch}, {row.num_threads} thr." for row in rows]
    bars_drawn = axes.barh(labels, [row.times_as_fast for row in rows], color="#2f6f9f")
    axes.bar_label(bars_drawn, [f"{row.times_as_fast:.2f} x {row.best_peer}" for row in rows], padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel(f"times as fast as the best peer; {results.cpu}, {results.date}")
    axes.invert_yaxis()
    axes.margins(x=0.25)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> None:
    """Writes the page and the README's section from the results that are there."""
    from benchmarks.results import read

    for path in sorted(RESULTS.glob("x86-*.json")):
        publish(read(path))


if __name__ == "__main__":
    main()
