"""Bundles with programs for several targets: the right one is taken, equal weights are kept once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtorch_relay import target as targets
from qtorch_relay.errors import BundleError, TargetError
from qtorch_relay.runtime import CompiledModel, load
from qtorch_relay.runtime.bundle import read_manifest, read_variants
from qtorch_relay.runtime.variants import choose, most_able
from qtorch_relay.target import HostCpu

ARM = tuple(targets.resolve(name) for name in ("arm-dotprod", "arm-neon", "arm-i8mm"))
NEON, DOTPROD = frozenset({"asimd"}), frozenset({"asimd", "asimddp"})

Build = Callable[..., CompiledModel]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, frozenset[str]], None]:
    """Returns a function that makes this host another CPU."""

    def become(machine: str, flags: frozenset[str]) -> None:
        monkeypatch.setattr(targets, "host_cpu", lambda: HostCpu(machine, flags, "a board"))
        monkeypatch.setattr("qtorch_relay.runtime.variants.host_cpu", lambda: HostCpu(machine, flags, "a board"))

    return become


@pytest.fixture
def several(build_linear: Build) -> CompiledModel:
    """Returns a model for the host and for generic code of it, with the same weight."""
    host, generic = targets.resolve("host"), targets.resolve("generic")
    return CompiledModel.joined([build_linear(generic), build_linear(host)])


@pytest.mark.parametrize(
    ("flags", "taken"), [(NEON, "arm-neon"), (DOTPROD, "arm-dotprod"), (DOTPROD | {"i8mm"}, "arm-i8mm")]
)
def test_the_most_able_is_taken_wherever_it_stands(
    cpu: Callable[[str, frozenset[str]], None], flags: frozenset[str], taken: str
) -> None:
    cpu("aarch64", flags)
    for order in (ARM, ARM[::-1]):
        assert order[choose(order)].name == taken


def test_kernels_are_preferred_to_generic_code_with_more_flags(cpu: Callable[[str, frozenset[str]], None]) -> None:
    cpu("aarch64", DOTPROD)
    with_kernels, without = replace(ARM[1], kernels="arm-neon"), replace(ARM[0], kernels=None)
    assert most_able([with_kernels, without]) == 0
    assert most_able([without, with_kernels]) == 1


def test_none_for_this_cpu_is_said_for_each(cpu: Callable[[str, frozenset[str]], None]) -> None:
    cpu("aarch64", NEON)
    with pytest.raises(
        TargetError,
        match=r"this host \(a board\) runs none of its 2 programs: arm-dotprod \(NEON dotprod\) needs the CPU flag "
        r"asimddp; arm-i8mm \(NEON i8mm\) needs the CPU flags asimddp, i8mm",
    ):
        choose([ARM[0], ARM[2]])
    with pytest.raises(TargetError, match=r"target arm-dotprod .* needs the CPU flag asimddp; this host \(a board\)"):
        choose([ARM[0]])


def test_one_can_be_asked_for(several: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "several.qtr"
    several.save(path)
    assert load(path).target == targets.resolve("host")
    generic = load(path, "generic")
    assert generic.target.name == "generic"
    generic.self_test()
    with pytest.raises(BundleError, match=r"it has no program for arm-neon, only for generic, "):
        load(path, "arm-neon")


def test_equal_weights_are_kept_once(several: CompiledModel, build_linear: Build, tmp_path: Path) -> None:
    several.save(tmp_path / "several.qtr")
    build_linear(targets.resolve("host")).save(tmp_path / "one.qtr")
    with zipfile.ZipFile(tmp_path / "several.qtr") as archive:
        assert archive.namelist() == ["manifest.json", "lib0.so", "lib1.so", "weights0.bin", "golden.bin"]
        size = archive.getinfo("weights0.bin").file_size
    with zipfile.ZipFile(tmp_path / "one.qtr") as archive:
        assert archive.getinfo("weights0.bin").file_size == size


def test_other_weights_are_in_parts_of_their_own(build_linear: Build, tmp_path: Path) -> None:
    one, other = np.ones((8, 4), "float32"), np.full((8, 4), 2, "float32")
    host, generic = targets.resolve("host"), targets.resolve("generic")
    models = [build_linear(generic, weights={"w": one}), build_linear(host, weights={"w": other})]
    path = tmp_path / "two.qtr"
    CompiledModel.joined(models).save(path)
    assert [entry.weights[0].part for entry in read_manifest(path).variants] == ["weights0.bin", "weights1.bin"]
    assert [variant.weights["w"][0, 0] for variant in read_variants(path)] == [1, 2]
    x = np.ones((2, 8), "float32")
    assert load(path).run_flat([x])[0][0, 0] == 16
    assert load(path, "generic").run_flat([x])[0][0, 0] == 8


def test_what_is_not_taken_is_not_read(several: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "several.qtr"
    several.save(path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("lib0.so")
    data[info.header_offset + 200] ^= 1
    path.write_bytes(data)
    load(path).self_test()
    with pytest.raises(BundleError, match=r"altered .*lib0\.so"):
        load(path, "generic")
    with pytest.raises(BundleError, match=r"altered .*lib0\.so"):
        read_variants(path)


def test_a_loaded_one_of_several_is_not_saved_as_all(several: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "several.qtr"
    several.save(path)
    with pytest.raises(TargetError, match=r"also has programs for generic, which were not loaded; copy that file"):
        load(path).save(tmp_path / "again.qtr")


def test_variants_tell_their_own_targets_and_reports(several: CompiledModel, tmp_path: Path) -> None:
    several.variants[0].report["messages"] = ["generic code"]
    path = tmp_path / "several.qtr"
    several.save(path)
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("manifest.json"))
    assert [variant["target"]["name"] for variant in data["variants"]] == ["generic", targets.resolve("host").name]
    assert [variant["report"] for variant in data["variants"]] == [{"messages": ["generic code"]}, {}]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("arm-neon, arm-dotprod", ["arm-neon", "arm-dotprod"]),
        (["arm-neon", targets.resolve("arm-i8mm")], ["arm-neon", "arm-i8mm"]),
        ("arm-neon", ["arm-neon"]),
    ],
)
def test_several_targets_are_written_as_a_list_or_with_commas(given: object, names: list[str]) -> None:
    assert [target.name for target in targets.resolve_all(given)] == names


@pytest.mark.parametrize("given", ["arm-neon,arm-neon", [], "arm-neon,"])
def test_lists_of_targets_that_are_none(given: object) -> None:
    with pytest.raises(TargetError, match=r"give one or more, each once|unknown target ''"):
        targets.resolve_all(given)
