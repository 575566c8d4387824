"""A record as one HTML file that needs nothing from elsewhere; everything that comes from the record is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from accuracy_reports.gate import Check
from accuracy_reports.layers.blame import describe, own_sqnr_db, sentences, worst_first
from accuracy_reports.pages.plots import HISTOGRAM_BINS, Axis, axis, histogram_path, line, place, tallest_bar
from accuracy_reports.record import CODES, FLOAT, INT8, OURS, Gap, Layer, Layers, Program, Record, Share
from qtorch_relay.errors import QTorchRelayError

_FOLDER = "templates"
# More would only make the file heavy: the rest is in record.json.
MAX_ROWS = 500
WORST_LAYERS = 6
NOTHING, NO_BREAK = "-", "\N{NO-BREAK SPACE}"


class ReportError(QTorchRelayError):
    """A report cannot be drawn."""


@dataclass(frozen=True)
class Card:
    """A headline: a figure and what it means. mood: "good", "bad" or ""."""

    title: str
    figure: str
    note: str
    mood: str = ""


@dataclass(frozen=True)
class Bar:
    """A row of a plot. at: where the value lies, in percent of the axis; low, high: its interval, None without one."""

    name: str
    text: str
    at: float
    low: float | None
    high: float | None
    is_ours: bool


@dataclass(frozen=True)
class BarPlot:
    """Bars over one axis. from_zero: bars, else dots, since a bar that does not start at 0 lies."""

    title: str
    note: str
    axis_title: str
    axis: Axis
    bars: tuple[Bar, ...]
    from_zero: bool


@dataclass(frozen=True)
class Histogram:
    """The codes of a layer. theirs, ours: outlines; zero: where the zero point lies, in percent.

    top: the share of the tallest bar, which stands for bin_codes codes.
    """

    layer: Layer
    least: int
    greatest: int
    theirs: str
    ours: str | None
    zero: float
    top: float
    bin_codes: int = CODES // HISTOGRAM_BINS


@dataclass(frozen=True)
class Curve:
    """SQNR over the layers. compiler: float to ours, None where it is float to PyTorch int8's everywhere."""

    axis: Axis
    inherited: str
    alone: str
    compiler: str | None
    dots: tuple[tuple[float, float, str, str], ...]
    first: str
    last: str


def render(record: Record, title: str | None = None) -> str:
    """Returns the report of a record. title: None = the model's name. Raises: ReportError without jinja2."""
    return fill(
        "report.html.j2",
        record=record,
        title=title or record.model.name,
        cards=cards(record),
        plots=[plot for plot in (_accuracy(record), _agreement(record), _latency(record)) if plot is not None],
        layers=None if record.layers is None else layers_view(record.layers),
        class_name=_class_names(record.dataset.classes),
        max_rows=MAX_ROWS,
    )


def render_checks(old: Record, new: Record, checks: Sequence[Check]) -> str:
    """Returns the comparison of two runs as a page. Raises: ReportError without jinja2."""
    failed = sum(not check.passes for check in checks)
    return fill("gate.html.j2", title=new.model.name, old=old, new=new, checks=checks, failed=failed)


def _class_names(classes: Sequence[str]) -> Callable[[int | None], str]:
    """Returns what names a class by its index; the index alone where the names do not reach."""

    def name(index: int | None) -> str:
        if index is None:
            return "not labeled"
        return classes[index] if index < len(classes) else f"class {index}"

    return name


def fill(template: str, **values: Any) -> str:
    """Returns a filled template, whose own script is the only one that the page allows."""
    try:
        import jinja2
        import markupsafe
    except ImportError as error:
        raise ReportError("reports need jinja2; pip install 'qtorch-relay[accuracy]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, _FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resources.files(__package__).joinpath(_FOLDER, "sort.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.filters.update(FILTERS)
    page = environment.get_template(template)
    # Our own file, so it goes in unescaped, to the byte that the hash is of.
    own = {"script": markupsafe.Markup(script), "script_hash": f"sha256-{digest}"}
    return page.render(describe=describe, own_sqnr_db=own_sqnr_db, **own, **values)


def percent(share: Share | Gap | float | None, digits: int = 2) -> str:
    """Returns a share in percent; no digits where it is all or nothing, "<0.01 %" for little that is not nothing."""
    if share is None:
        return NOTHING
    value = share if isinstance(share, float) else share.share if isinstance(share, Gap) else share.value
    least = 10.0**-digits / 100
    if value in (0, 1):
        text = f"{100 * value:.0f}"
    elif value < least:
        text = f"<{100 * least:.{digits}f}"
    elif value > 1 - least:
        text = f">{100 * (1 - least):.{digits}f}"
    else:
        text = f"{100 * value:.{digits}f}"
    return f"{text}{NO_BREAK}%"


def number(value: float | None, digits: int = 1) -> str:
    """Returns a number with so many decimals, an integer with commas."""
    if value is None:
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def latency(value_ms: float | None) -> str:
    """Returns milliseconds with three digits that count."""
    if value_ms is None:
        return NOTHING
    return f"{value_ms:.0f}{NO_BREAK}ms" if value_ms >= 100 else f"{value_ms:.3g}{NO_BREAK}ms"


FILTERS: dict[str, Callable[..., Any]] = {"percent": percent, "number": number, "latency": latency}


def cards(record: Record) -> list[Card]:
    """Returns the headlines of a run."""
    ours, int8, floats = (record.program(name) for name in (OURS, INT8, FLOAT))
    found = []
    if ours is not None and ours.differing is not None:
        differing, kind = ours.differing, ours.outputs_are
        found.append(
            Card(
                f"{kind} against PyTorch int8",
                f"{differing.count:,} differ",
                f"of {differing.of:,} output {kind} on {ours.images:,} images",
                "bad" if differing.count else "good",
            )
        )
    if ours is not None and ours.top1 is not None:
        others = [f"{row.name} {percent(row.top1)}" for row in (floats, int8) if row is not None]
        found.append(Card("top-1, qtorch_relay", percent(ours.top1), ", ".join(others)))
    elif ours is not None and ours.agreement is not None:
        same, mood = ours.agreement, "good" if ours.agreement.count == ours.agreement.of else "bad"
        found.append(Card("same first answer as PyTorch int8", percent(same), f"{ours.images:,} images", mood))
    if ours is not None and ours.latency_ms is not None:
        note = f"median, batch {ours.batch}"
        if int8 is not None and int8.latency_ms and ours.latency_ms:
            note += f"; {int8.latency_ms / ours.latency_ms:.2f} times as fast as PyTorch int8"
        found.append(Card("latency, qtorch_relay", latency(ours.latency_ms), note))
    if record.layers is not None:
        found.append(_layers_card(record.layers))
    return found


def _layers_card(layers: Layers) -> Card:
    differing = sum(layer.compiler.differing for layer in layers.layers)
    total = sum(layer.compiler.of for layer in layers.layers)
    note = f"of {total:,} elements, {layers.images:,} images, against PyTorch int8"
    return Card(f"in {len(layers.layers)} layers", f"{differing:,} differ", note, "bad" if differing else "good")


def _bars(rows: Sequence[tuple[Program, float, Share | None, str]], scale: Axis) -> tuple[Bar, ...]:
    def bar(program: Program, value: float, share: Share | None, text: str) -> Bar:
        low, high = (None, None) if share is None else (scale.at(100 * share.low), scale.at(100 * share.high))
        return Bar(program.name, text, scale.at(value), low, high, program.name.startswith(OURS))

    return tuple(bar(*row) for row in rows)


def _accuracy(record: Record) -> BarPlot | None:
    shares = [(row, row.top1) for row in record.programs if row.top1 is not None]
    return _shares("Top-1 accuracy", "top-1, % of the images; the line is the 95 % interval", shares)


def _agreement(record: Record) -> BarPlot | None:
    shares = [(row, row.agreement) for row in record.programs if row.agreement is not None and row.name != INT8]
    return _shares("Same first answer as PyTorch int8", "% of the images; the line is the 95 % interval", shares)


def _shares(title: str, axis_title: str, shares: Sequence[tuple[Program, Share]]) -> BarPlot | None:
    if not shares:
        return None
    scale = axis([100 * end for _, share in shares for end in (share.low, share.high)], start=0, end=100)
    rows = [(program, 100 * share.value, share, percent(share)) for program, share in shares]
    note = f"{shares[0][0].images:,} images"
    return BarPlot(title, note, axis_title, scale, _bars(rows, scale), from_zero=False)


def _latency(record: Record) -> BarPlot | None:
    known = [(row, row.latency_ms) for row in record.programs if row.latency_ms is not None]
    if not known:
        return None
    scale = axis([ms for _, ms in known], start=0)
    threads = record.environment.num_threads
    note = f"median, batch {known[0][0].batch}" + ("" if threads is None else f", {threads} thread(s)")
    bars = _bars([(row, ms, None, latency(ms)) for row, ms in known], scale)
    return BarPlot("Latency", note, "milliseconds a call; shorter is better", scale, bars, from_zero=True)


def layers_view(layers: Layers) -> dict[str, Any]:
    """Returns what the template shows of layers, the worst first."""
    ranked = worst_first(layers.layers)
    with_codes = [layer for layer in ranked if layer.theirs is not None]
    order = {layer.name: i + 1 for i, layer in enumerate(layers.layers)}
    return {
        "sentences": sentences(layers),
        "curve": None if layers.float_model is None else _curve(layers.layers),
        "histograms": [histogram(layer) for layer in with_codes[:WORST_LAYERS]],
        "rows": [(order[layer.name], layer, histogram(layer)) for layer in ranked],
        "total": layers,
    }


def histogram(layer: Layer) -> Histogram | None:
    """Returns the outlines of a layer's codes; None where it has none."""
    if layer.theirs is None or layer.zero_point is None:
        return None
    least = -128 if layer.dtype == "int8" else 0
    ours = None if layer.ours is None else histogram_path(layer.ours.histogram)
    zero = (layer.zero_point - least + 0.5) / 2.56
    theirs, top = histogram_path(layer.theirs.histogram), tallest_bar(layer.theirs.histogram)
    return Histogram(layer, least, least + CODES - 1, theirs, ours, round(zero, 2), top)


def _curve(layers: Sequence[Layer]) -> Curve | None:
    def sqnr_db(gap: Gap | None) -> float | None:
        return None if gap is None else gap.sqnr_db

    inherited = [sqnr_db(layer.quantization) for layer in layers]
    alone = [own_sqnr_db(layer) for layer in layers]
    ours = [sqnr_db(layer.total) for layer in layers]
    known = [value for value in (*inherited, *alone, *ours) if value is not None]
    if not known:
        return None
    scale = axis(known, marks=5)
    dots = []
    for i, layer in enumerate(layers):
        text = f"{i + 1}. {describe(layer)}: alone {number(alone[i])} dB, inherited {number(inherited[i])} dB"
        for value, kind in ((inherited[i], "dot-a"), (alone[i], "dot-b")):
            if value is not None:
                dots.append((place(i, len(layers)), 100 - scale.at(value), kind, text))
        if layer.own_compiler:
            value = ours[i] if ours[i] is not None else scale.low
            text = f"{text}; {layer.own_compiler:,} elements differ by the compiler"
            dots.append((place(i, len(layers)), 100 - scale.at(value or 0.0), "dot-bad", text))
    return Curve(
        scale,
        line(inherited, scale),
        line(alone, scale),
        None if ours == inherited else line(ours, scale),
        tuple(dots),
        describe(layers[0]),
        describe(layers[-1]),
    )
