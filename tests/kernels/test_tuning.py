"""Tuning: other tiles, the same codes; its cache, also when the file is bad."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qtorch_relay.errors import TuningCacheWarning
from qtorch_relay.kernels import tuning
from qtorch_relay.kernels.conv2d_plan import tile_candidates, use_tiles
from qtorch_relay.kernels.conv2d_tiling import DotUnit, Tiling
from qtorch_relay.kernels.spec import Conv2dSpec, DenseSpec
from qtorch_relay.kernels.table import select
from qtorch_relay.kernels.tuning_cache import FOLDER_VARIABLE, Entry, TuningCache, cache_folder

ISA = "x86-avx512vnni"
CONV = Conv2dSpec(1, 9, 9, 32, 96, 3, 3, padding=(1, 1, 1, 1))
DENSE = DenseSpec(1, 64, 100)
UNIT = DotUnit(16, 32)


@pytest.fixture
def cache(tmp_path: Path) -> TuningCache:
    return TuningCache(tmp_path / "tuning.json")


@pytest.fixture
def last_is_fastest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes each kernel faster than those timed before it, without running any; returns what was timed."""
    timed: list[int] = []

    def timer(*_: Any) -> Callable[[], float]:
        timed.append(len(timed))
        latency = 1.0 / len(timed)
        return lambda: latency

    monkeypatch.setattr(tuning, "timer_in_network", timer)
    return timed


@pytest.mark.parametrize("spec", [CONV, DENSE, replace(CONV, requantize="real")], ids=["conv2d", "dense", "real"])
def test_tuned_tiles_give_the_same_codes(spec, cache, last_is_fastest, compile_specs, run_kernel) -> None:
    found = tuning.tune(ISA, [spec], 60.0, cache)
    ((name, conv), tiles), *_ = found.tiles.items()
    assert (name, found.layers, found.changed) == (ISA, 1, 1)
    assert tiles == tuning.choices(conv, UNIT)[-1]
    kernel = select(ISA, spec)
    inputs, constants = kernel.arguments(spec, 0, True)
    expected = kernel.reference(spec, *inputs, *constants)
    with use_tiles(found.tiles):
        compiled = compile_specs(kernel, [spec])
        packed = kernel.pack(spec, *constants)
    actual = run_kernel(compiled["k0"], [*inputs, *packed], np.zeros_like(expected))
    np.testing.assert_array_equal(actual, expected)


def test_what_is_known_is_not_timed_again(cache, last_is_fastest) -> None:
    first = tuning.tune(ISA, [CONV, DENSE, CONV], 60.0, cache)
    timings = len(last_is_fastest)
    again = tuning.tune(ISA, [CONV, DENSE], 60.0, TuningCache(cache.path))
    assert (first.layers, again.timed, len(last_is_fastest)) == (2, 0, timings)
    assert again.tiles == first.tiles


def test_no_time_takes_what_is_known(cache, last_is_fastest) -> None:
    told: list[float] = []
    nothing = tuning.tune(ISA, [CONV], 0.0, cache, told.append)
    assert (nothing.timed, nothing.changed, told, cache.path.exists()) == (0, 0, [1.0], False)
    tuning.tune(ISA, [CONV], 60.0, cache)
    assert tuning.tune(ISA, [CONV], 0.0, cache).changed == 1


def test_choices_begin_with_the_planners_and_differ_in_width() -> None:
    first, *others = tuning.choices(CONV, UNIT)
    assert first == tile_candidates(CONV, UNIT)[0]
    assert len({first, *others}) == tuning.CANDIDATES
    assert len({vectors for _, vectors, _ in (first, *others)}) >= tuning.WIDTHS


def test_equal_times_change_nothing(cache, monkeypatch) -> None:
    monkeypatch.setattr(tuning, "timer_in_network", lambda *_: lambda: 1.0)
    assert tuning.tune(ISA, [CONV], 60.0, cache).changed == 0


def test_tiles_that_there_are_not_are_not_taken(cache, last_is_fastest) -> None:
    kernel = select(ISA, CONV)
    cache.put(ISA, kernel.name, CONV, Entry((1, 6, Tiling(50, 50, 1, 1)), tuning.CANDIDATES))
    assert tuning.tune(ISA, [CONV], 0.0, cache).changed == 0


def test_time_is_kept(cache, last_is_fastest, monkeypatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: float(next(clock)))
    found = tuning.tune(ISA, [CONV, DENSE], 3.0, cache)
    assert found.timed == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "indices"),
        ('{"version": 0, "entries": {}}', "version 0, this program reads 1"),
        ('{"version": 1}', "it has no 'entries'"),
        ('{"version": 1, "entries": {"a": {"tiling": {}}}}', "it has no"),
        ('{"version": 1, "entries": {"a": {"tiling": 5}}}', "not iterable"),
        ("\x00\xff", ""),
    ],
)
def test_a_bad_file_is_ignored_with_a_warning_and_written_anew(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text, "latin-1")
    with pytest.warns(TuningCacheWarning, match=f"tuning.json is ignored, it is no tuning cache: .*{reason}"):
        cache = TuningCache(path)
    entry = Entry((1, 2, Tiling(1, 3, 9, 3, last=(1, 2))), 4)
    cache.put(ISA, "conv2d", CONV, entry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.write()
        assert TuningCache(path).get(ISA, "conv2d", CONV) == entry
    assert [file.name for file in tmp_path.iterdir()] == ["tuning.json"]


def test_two_processes_write_to_one_file(tmp_path: Path) -> None:
    caches = [TuningCache(tmp_path / "tuning.json") for _ in range(2)]
    entry = Entry((1, 2, Tiling(1, 3, 9, 3)), 4)
    for number, cache in enumerate(caches):
        cache.put(ISA, f"kernel{number}", CONV, entry)
        cache.write()
    assert len(json.loads(caches[0].path.read_text())["entries"]) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(TuningCacheWarning):
        cache = TuningCache(tmp_path / "file" / "tuning.json")
    cache.put(ISA, "kernel", CONV, Entry((1, 2, Tiling(1, 3, 9, 3)), 4))
    with pytest.warns(TuningCacheWarning, match="cannot be written"):
        cache.write()


def test_the_folder_is_the_users_or_the_one_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == Path("/cache/qtorch_relay")
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library/Caches/qtorch_relay"
