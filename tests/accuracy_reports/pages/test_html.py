"""Reports as a browser shows them: in headless Chromium, without a network, on a desk and on a phone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from accuracy_reports.gate import compare_records, read_thresholds
from accuracy_reports.pages.html import NO_BREAK, percent, render, render_checks
from accuracy_reports.pages.plots import axis, histogram_path, line
from accuracy_reports.record import OURS, Layers, Record, Share
from tests.accuracy_reports.records import layer, record
from tests.requirements import refuse

PHONE_WIDTH = 360
NASTY = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'


@dataclass
class Page:
    """A page of the browser, and what it complained about or asked the network for."""

    page: Any
    troubles: list[str] = field(default_factory=list)

    def show(self, html: str, path: Path, width: int = 1200) -> Any:
        path.write_text(html)
        self.page.set_viewport_size({"width": width, "height": 800})
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if find_spec("playwright") is None:
        refuse("CHROMIUM", "playwright is not installed; it is among the development tools (make install)")
    from playwright import sync_api

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        refuse("CHROMIUM", "there is no Chromium; on Debian and Ubuntu: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        # --no-sandbox: Chromium refuses to start its sandbox as root, as in containers; the pages are our own.
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    opened = Page(browser.new_page())
    opened.page.on("console", lambda message: opened.troubles.append(f"console: {message.text}"))
    opened.page.on("pageerror", lambda error: opened.troubles.append(f"error: {error}"))
    opened.page.on(
        "request", lambda request: request.url.startswith(("file:", "data:")) or opened.troubles.append(request.url)
    )
    yield opened
    opened.page.close()


def many_layers(count: int = 60) -> Record:
    layers = [layer(i, 45.0 - 0.4 * ((i * 7) % count)) for i in range(count)]
    layers[5] = layer(5, differing=12, ours=layer(6).theirs)
    layers[9] = layer(9, total=None, quantization=None, own_quantization=None, counterpart=None, missing="no such op")
    return record(layers=Layers(8, "float.pt", tuple(layers)))


def test_a_report_opens_without_errors_or_network_and_shows_every_plot(page: Page, tmp_path: Path) -> None:
    shown = page.show(render(many_layers()), tmp_path / "report.html")
    figures = shown.locator("figure.plot")
    titles = [figures.nth(i).get_attribute("aria-label") for i in range(figures.count())]
    assert titles == [
        "Top-1 accuracy",
        "Same first answer as PyTorch int8",
        "Latency",
        "SQNR by layer",
        "Codes of the worst layers",
    ]
    for i in range(figures.count()):
        box = figures.nth(i).bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 80
        assert figures.nth(i).locator("svg[role=img]").count() > 0
    drawn = shown.locator("figure.plot svg[role=img]").evaluate_all(
        "all => all.map(svg => [...svg.children].every(item => {"
        " const box = item.getBoundingClientRect(); return box.width + box.height > 0; }))"
    )
    assert all(drawn)
    assert shown.locator(".axis-title").all_inner_texts() == [
        "top-1, % of the images; the line is the 95 % interval",
        "% of the images; the line is the 95 % interval",
        "milliseconds a call; shorter is better",
        "layers in the order of execution; vertical: dB",
    ]
    assert page.troubles == []


def test_the_layer_table_shows_the_worst_first_and_sorts_by_keyboard(page: Page, tmp_path: Path) -> None:
    shown = page.show(render(many_layers()), tmp_path / "report.html")
    rows = shown.locator("#layer-table > tbody > tr")
    assert rows.count() == 60
    assert "layer5.conv" in rows.nth(0).inner_text()  # the compiler's fault comes before any loss by quantization
    column = shown.locator("#layer-table > thead th", has_text="alone dB")
    column.locator("button").focus()
    shown.keyboard.press("Enter")
    assert column.get_attribute("aria-sort") == "ascending"
    values = shown.locator("#layer-table > tbody > tr > td:nth-child(3)").evaluate_all(
        "all => all.map(c => c.dataset.value)"
    )
    known = [float(value) for value in values if value]
    assert known == sorted(known)
    assert values[-1] == ""  # what is not known stays last
    shown.keyboard.press("Space")
    assert column.get_attribute("aria-sort") == "descending"
    values = shown.locator("#layer-table > tbody > tr > td:nth-child(3)").evaluate_all(
        "all => all.map(c => c.dataset.value)"
    )
    assert [float(value) for value in values if value] == sorted(known, reverse=True)
    assert values[-1] == ""
    assert shown.locator("#layer-table th[aria-sort]").count() == 1
    name = shown.locator("#layer-table > thead th", has_text="layer").first
    name.locator("button").click()
    names = shown.locator("#layer-table > tbody > tr > td:nth-child(1)").evaluate_all(
        "all => all.map(c => c.dataset.value)"
    )
    assert names[:3] == ["layer0.conv", "layer1.conv", "layer2.conv"]  # 2 before 10
    assert shown.locator("#sorted").inner_text() == "sorted by layer, ascending"
    assert page.troubles == []


def test_a_layer_opens_its_details(page: Page, tmp_path: Path) -> None:
    shown = page.show(render(many_layers()), tmp_path / "report.html")
    details = shown.locator("#layer-table details").first
    assert not details.locator("table").is_visible()
    details.locator("summary").focus()
    shown.keyboard.press("Enter")
    assert details.locator("table").is_visible()
    assert f"12.00{NO_BREAK}%" in details.inner_text()
    assert details.locator(".ours-line").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(page: Page, tmp_path: Path, scheme: str) -> None:
    found = many_layers()
    checks = compare_records(found, found, read_thresholds(None))
    page.page.emulate_media(color_scheme=scheme)
    for name, html in {"report": render(found), "gate": render_checks(found, found, checks)}.items():
        shown = page.show(html, tmp_path / f"{name}.html", PHONE_WIDTH)
        shown.locator("details").evaluate_all("all => all.slice(0, 3).forEach(item => item.open = true)")
        assert shown.evaluate("document.documentElement.scrollWidth") == PHONE_WIDTH
        outside = shown.locator("main > *").evaluate_all(
            "(all) => all.filter(item => item.getBoundingClientRect().right > innerWidth).map(item => item.outerHTML)"
        )
        assert outside == []
    ground, text = (shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    dark = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, text)]
    assert (dark[0] < dark[1]) == (scheme == "dark")
    assert page.troubles == []


def test_a_record_cannot_smuggle_code_into_the_page(page: Page, tmp_path: Path) -> None:
    found = many_layers(3 + 8)
    assert found.layers is not None
    layers = tuple(layer(i, scope=NASTY, source=NASTY, op=NASTY, counterpart=NASTY) for i in range(3))
    nasty = record(
        model=record().model.__class__(NASTY, NASTY, NASTY, NASTY, (NASTY,), (NASTY,)),
        dataset=record().dataset.__class__(NASTY, 361, (NASTY,) * 10, NASTY),
        layers=Layers(1, NASTY, layers),
    )
    html = render(nasty)
    assert "<img" not in html
    assert html.count("<script") == 1
    assert "{{ 7 * 7 }}" in html  # what a record says is no template
    shown = page.show(html, tmp_path / "nasty.html")
    assert shown.title().startswith(NASTY)
    assert page.troubles == []
    # and if something got in, the page would not run it
    page.show(html.replace("</main>", "<script>document.title = 'broken into'</script></main>"), tmp_path / "open.html")
    assert shown.title().startswith(NASTY)
    assert "Content Security Policy" in page.troubles[0]


def test_a_report_without_labels_or_layers_is_drawn(page: Page, tmp_path: Path) -> None:
    found = record(layers=None, programs=(), broken=(), changed=())
    shown = page.show(render(found), tmp_path / "bare.html")
    assert shown.locator("figure.plot").count() == 0
    assert shown.locator("h2").all_inner_texts() == ["Environment"]
    assert page.troubles == []


def test_floats_are_shown_where_a_model_gives_no_codes() -> None:
    floats = Share.of_count(3, 3600)
    rows = [
        replace(row, differing_codes=None, differing_floats=floats) if row.name == OURS else row
        for row in record().programs
    ]
    html = render(record(programs=tuple(rows)))
    assert "floats against PyTorch int8" in html
    assert "3 of 3,600 floats" in html


def test_an_axis_holds_its_values_and_has_round_marks() -> None:
    found = axis([97.2, 99.6], start=0, end=100)
    assert (found.low, found.high) == (97.0, 100.0)
    assert [tick.text for tick in found.ticks] == ["97", "98", "99", "100"]
    zero = axis([0.25, 0.1], start=0)
    assert zero.at(0) == 0
    assert zero.high >= 0.25
    assert axis([5.0]).low <= 5 <= axis([5.0]).high
    assert axis([0.0, 0.0], start=0).high > 0
    assert axis([100.0], start=0, end=100).high == 100
    assert axis([12.0, 51.0], marks=5).ticks[0].text == "10"


def test_a_line_is_interrupted_where_nothing_is_known() -> None:
    assert line([1.0, None, 0.0, 1.0], axis([0.0, 1.0])) == "M12.5 0M62.5 100L87.5 0"


def test_a_histogram_has_as_many_steps_as_bins() -> None:
    path = histogram_path([0] * 128 + [4] + [0] * 127)
    assert path.count("H") == 64
    assert "V0H" in path


@pytest.mark.parametrize(
    ("count", "of", "text"),
    [(0, 9, "0 %"), (9, 9, "100 %"), (1, 10**6, "<0.01 %"), (999_999, 10**6, ">99.99 %"), (1, 3, "33.33 %")],
)
def test_a_share_that_is_not_all_or_nothing_never_looks_so(count: int, of: int, text: str) -> None:
    assert percent(Share.of_count(count, of)).replace(NO_BREAK, " ") == text
