"""Bundles: what is saved is loaded, and nothing else is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qtorch_relay
from qtorch_relay import target as targets
from qtorch_relay.errors import BundleError, FloatModelWarning, OutputPathError, QTorchRelayError, TargetError
from qtorch_relay.runtime import CompiledModel, bundle, ffi, load, manifest
from qtorch_relay.target import HostCpu

PER_CHANNEL = {"scales": [1.0], "zero_points": [0], "axis": 0}
ELF_AARCH64 = 183
MEMBERS = ("manifest.json", "lib0.so", "weights0.bin", "golden.bin")


@pytest.fixture(scope="session")
def saved(linear: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a bundle of `linear`; tests read it and write their own."""
    path = tmp_path_factory.mktemp("bundle") / "linear.qtr"
    linear.save(path)
    return path


def rewrite(source: Path, goal: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Writes a bundle whose members `change` has changed, with a comment that fits its manifest."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(goal, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        digest = hashlib.sha256(members.get("manifest.json", b"")).hexdigest()
        archive.comment = f"qtorch_relay sha256:{digest}".encode()
    return goal


def edit_manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def edit(members: dict[str, bytes]) -> None:
        data = json.loads(members["manifest.json"])
        change(data)
        members["manifest.json"] = json.dumps(data).encode()

    return edit


def test_a_loaded_model_is_the_saved_one(
    linear: CompiledModel, saved: Path, random_input: Callable[[], Any], tmp_path: Path
) -> None:
    loaded = load(saved)
    loaded.self_test()
    x = random_input()
    assert (loaded(x)["all"][0] == linear(x)["all"][0]).all()
    assert repr(loaded) == repr(linear)
    assert dataclasses.replace(loaded.interface) == linear.interface
    again = tmp_path / "again.qtr"
    loaded.save(again)
    load(str(again)).self_test()


def test_two_bundles_are_loaded_at_once(saved: Path, codes: CompiledModel, tmp_path: Path) -> None:
    codes.save(tmp_path / "codes.qtr")
    first, second = load(saved), load(tmp_path / "codes.qtr")
    first.self_test()
    second.self_test()
    assert second.outputs[0].qparams == codes.outputs[0].qparams


def test_per_channel_parameters_survive(build_linear: Callable[..., CompiledModel], tmp_path: Path) -> None:
    from qtorch_relay.qparams import PerChannel

    qparams = PerChannel(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0, -1, 1, 2]), 1, "int32")
    spec = bundle.TensorSpec("y", (2, 4), "int32", qparams)
    read = bundle.TensorSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert isinstance(read.qparams, PerChannel)
    assert (read.qparams.scales == qparams.scales).all()
    assert (read.qparams.zero_points == qparams.zero_points).all()
    assert read.qparams.axis == 1


def test_self_test_notices_another_result(saved: Path) -> None:
    loaded = load(saved)
    assert loaded.golden is not None
    loaded.golden.outputs[1][0, 2] += 1
    with pytest.raises(BundleError, match=r"self-test: output output1: .* differs from the golden output in 1 of 8"):
        loaded.self_test()


def test_nothing_is_left_in_the_temporary_folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load(saved).self_test()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("thousandths", [0, 1, 5, 50, 200, 500, 700, 900, 950, 990, 999])
def test_truncated(saved: Path, tmp_path: Path, thousandths: int) -> None:
    data = saved.read_bytes()
    path = tmp_path / "short.qtr"
    path.write_bytes(data[: len(data) * thousandths // 1000])
    with pytest.raises(BundleError, match=r"cannot load .*short\.qtr: it is .*truncated"):
        load(path)


@pytest.mark.parametrize("missing", [1, 2, 10, 64, 100])
def test_truncated_at_its_end(saved: Path, tmp_path: Path, missing: int) -> None:
    path = tmp_path / "short.qtr"
    path.write_bytes(saved.read_bytes()[:-missing])
    with pytest.raises(BundleError, match=r"cannot load .*short\.qtr: "):
        load(path)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_flipped_bit_in_a_part(saved: Path, tmp_path: Path, member: str, place: float) -> None:
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        info = archive.getinfo(member)
    name_size, extra_size = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
    start = info.header_offset + 30 + name_size + extra_size
    data[start + int(place * (info.file_size - 1))] ^= 4
    path = tmp_path / "flipped.qtr"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"cannot load .*flipped\.qtr: .*altered"):
        load(path)


def test_any_flipped_byte_is_refused_or_harmless(saved: Path, tmp_path: Path) -> None:
    """The zip's own fields (dates, attributes) may differ; what is loaded then is still the saved model."""
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        starts = [info.header_offset for info in archive.infolist()]
    headers = [start + i for start in starts for i in range(30)]
    tail = range(len(data) - 600, len(data))
    path = tmp_path / "flipped.qtr"
    for position in [*headers, *tail]:
        changed = bytearray(data)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        with suppress(BundleError):
            load(path).self_test()


@pytest.mark.parametrize("member", MEMBERS[1:])
def test_a_part_swapped_with_its_checksum_left(saved: Path, tmp_path: Path, member: str) -> None:
    def change(members: dict[str, bytes]) -> None:
        members[member] = bytes(len(members[member]))

    path = rewrite(saved, tmp_path / "swapped.qtr", change)
    with pytest.raises(BundleError, match=rf"its part {member} was altered \(sha256 differs\)"):
        load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.so", "it has the members"),
        ("/etc/evil", "it has the members"),
        ("pickle.pkl", "it has the members"),
    ],
)
def test_foreign_members_are_refused(saved: Path, tmp_path: Path, name: str, message: str) -> None:
    path = rewrite(saved, tmp_path / "foreign.qtr", lambda m: m.update({name: b"x"}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match=message):
        load(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("member", MEMBERS)
def test_a_missing_member(saved: Path, tmp_path: Path, member: str) -> None:
    path = rewrite(saved, tmp_path / "missing.qtr", lambda members: members.pop(member) and None)
    with pytest.raises(BundleError, match="it has the members"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_member_twice(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.qtr"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("lib0.so", b"other")
    with pytest.raises(BundleError, match="it has the members"):
        load(path)


def test_a_compressed_member(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "packed.qtr"
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in MEMBERS:
            packed.writestr(name, archive.read(name))
    with pytest.raises(BundleError, match="is compressed, encrypted or larger than the file"):
        load(path)


def test_a_member_that_claims_to_be_huge(saved: Path, tmp_path: Path) -> None:
    data = bytearray(saved.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"weights0.bin"))
    data[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path = tmp_path / "huge.qtr"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"its member weights0\.bin is compressed, encrypted or larger than the file"):
        load(path)


def set_path(data: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in folders:
        data = data[key]  # type: ignore[index]
    data[last] = value  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "zip of mine", "its manifest is not one of qtorch_relay"),
        ("format_version", 3, "it has format version 3, this qtorch_relay .* reads version 4; compile the model again"),
        ("tvm_version", "0.28.0", r"it was compiled with TVM 0\.28\.0, TVM 0\.27.* is installed"),
        (
            "variants/0/weights/0/shape",
            [1 << 40],
            r"weight w: .* lies at bytes 0 to 4398046511104 of weights0",
        ),
        ("variants/0/weights/0/shape", [-8, 4], r"tensor 'w' has shape \[-8, 4\]"),
        ("variants/0/weights/0/shape", [8.0, 4], r"tensor 'w' has shape"),
        ("variants/0/weights/0/shape", [True] * 20, r"tensor 'w' has shape"),
        ("variants/0/weights/0/dtype", "object", "tensor 'w' has dtype 'object'; known are bool"),
        ("variants/0/weights/0/dtype", "float64", r"lies at bytes 0 to 256 of weights0\.bin, which has 128"),
        ("variants/0/weights/0/offset", -64, "-64 is not a number of bytes"),
        ("variants/0/weights/0/offset", 4, "lies at bytes 4 to 132"),
        ("variants/0/weights/0/offset", 64, "lies at bytes 64 to 192"),
        ("variants/0/weights/0/part", "lib0.so", "'lib0.so' is not the name of a part"),
        ("variants/0/weights/0/part", "weights7.bin", "its manifest is not complete: KeyError"),
        ("variants/0/weights/0/part", "../x", "'../x' is not the name of a part"),
        ("variants/0/weights", {"w": 1}, "its manifest is not complete"),
        ("variants/0/library", "weights0.bin", "'weights0.bin' is not the name of a part"),
        ("variants/0/library", "lib1.so", "its manifest is not complete: KeyError"),
        ("variants", [], "it has no program"),
        ("variants", None, "its manifest is not complete: TypeError"),
        ("golden/source", "me", "the golden output is from 'me'; known are program"),
        ("golden/in_steps", [], "it says how 0 golden inputs are kept; there are 1"),
        ("golden", None, "its table of golden.bin describes 0 bytes"),
        ("inputs/0/name", None, "a tensor has no name"),
        ("outputs/0/qparams", {"scale": -1.0, "zero_point": 0}, "quantization parameters are not understood: codes of"),
        (
            "outputs/0",
            {"name": "y", "shape": [2], "dtype": "int8", "qparams": PER_CHANNEL},
            "has 1 scales along axis 0",
        ),
        ("outputs/0/qparams", {"scale": "x"}, "quantization parameters are not understood"),
        ("structure", {"tuple": [7]}, "its manifest is not complete: VerifyError"),
        ("structure", {"set": [0]}, "output structure .* is not an index"),
        ("structure", {"dict": [[["no", "key"], 0]]}, "output structure .* is not an index"),
        ("parts/lib0.so/size_bytes", 1 << 60, r"its part lib0\.so has .* bytes, the manifest says 1152921504606846976"),
        ("parts/lib0.so/size_bytes", "all", "'all' is not a number of bytes"),
        ("parts", {}, "its manifest is not complete: KeyError"),
        ("variants/0/target/name", 5, "its target has no name"),
        ("variants/0/target", {}, "its manifest is not complete: KeyError"),
        ("variants/0/report", None, "its manifest is not complete: TypeError"),
    ],
)
def test_a_manifest_that_is_wrong(saved: Path, tmp_path: Path, path: str, value: Any, message: str) -> None:
    bad = rewrite(saved, tmp_path / "wrong.qtr", edit_manifest(lambda data: set_path(data, path, value)))
    with pytest.raises(QTorchRelayError, match=message) as raised:
        load(bad)
    assert isinstance(raised.value, BundleError)
    assert str(raised.value).startswith(f"cannot load {bad}: ")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000])
def test_a_manifest_that_is_none(saved: Path, tmp_path: Path, text: bytes) -> None:
    path = rewrite(saved, tmp_path / "none.qtr", lambda members: members.update({"manifest.json": text}))
    with pytest.raises(BundleError, match=r"cannot load .*none\.qtr: its manifest is not"):
        load(path)


def test_a_library_that_is_none(saved: Path, tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        members["lib0.so"] = b"no library"
        part = {"size_bytes": 10, "sha256": hashlib.sha256(b"no library").hexdigest()}
        edit_manifest(lambda data: data["parts"].update({"lib0.so": part}))(members)

    path = rewrite(saved, tmp_path / "nolib.qtr", change)
    with pytest.raises(BundleError, match="its library cannot be loaded from"):
        load(path)


def test_a_bundle_for_another_isa(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = targets.host_cpu()
    lesser = HostCpu(host.machine, frozenset(), "an old CPU")
    monkeypatch.setattr(targets, "host_cpu", lambda: lesser)
    with pytest.raises(BundleError, match=r"cannot load .*: target .* needs the CPU flags .*; this host \(an old"):
        load(saved)
    monkeypatch.setattr(targets, "host_cpu", lambda: HostCpu("riscv64", frozenset(), "another machine"))
    with pytest.raises(BundleError, match=rf"needs an {platform.machine()} CPU"):
        load(saved)


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot load .*none\.qtr: there is no such file"):
        load(tmp_path / "none.qtr")
    with pytest.raises(BundleError, match=r"cannot load .*: Is a directory"):
        load(tmp_path)


def test_what_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(BundleError, match="it is not a bundle"):
        load(path)


@pytest.mark.parametrize("where", ["missing/model.qtr", "file/model.qtr", "folder", "/proc/model.qtr"])
def test_unwritable_paths_leave_nothing_behind(linear: CompiledModel, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputPathError, match="cannot write"):
        linear.save(tmp_path / where)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pipe_is_not_replaced(linear: CompiledModel, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(
        OutputPathError, match=r"cannot write .*pipe: it is a device or a pipe; give the name of a file"
    ):
        linear.save(pipe)
    assert pipe.is_fifo()


def test_a_link_stays_a_link(linear: CompiledModel, tmp_path: Path) -> None:
    link = tmp_path / "link.qtr"
    link.symlink_to("model.qtr")
    linear.save(link)
    assert link.is_symlink()
    assert load(tmp_path / "model.qtr").inputs == linear.inputs


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"], ids=["long", "nul"])
def test_names_no_file_can_have_are_refused(linear: CompiledModel, tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputPathError, match="cannot write"):
        linear.save(tmp_path / name)


def test_a_program_without_code_is_saved(tmp_path: Path) -> None:
    with pytest.warns(FloatModelWarning):
        compiled = qtorch_relay.compile(torch.nn.Identity(), [("x", (1, 4))])
    compiled.save(tmp_path / "model.qtr")
    assert (load(tmp_path / "model.qtr")(np.ones((1, 4), "float32")) == 1).all()


def test_torchscript_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)).save(str(path))
    with pytest.raises(BundleError, match="it is a TorchScript file, not a bundle; compile it first"):
        load(path)


def test_a_failing_save_keeps_the_old_file(
    linear: CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.qtr"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputPathError, match=r"cannot write .*model\.qtr: No space left on device"):
        linear.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.qtr"]
    assert path.read_text() == "old"


def test_bundles_get_the_mode_of_ordinary_files(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "ordinary"
    other.write_text("")
    assert saved.stat().st_mode == other.stat().st_mode


def test_no_linker_is_named(
    build_linear: Callable[..., CompiledModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = build_linear(targets.resolve("host"))
    model(np.zeros((2, 8), "float32"))
    with pytest.raises(TargetError, match=r"needs a linker, and none of g\+\+, .* is installed; .* apt install g\+\+"):
        model.save(tmp_path / "model.qtr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("linker", ["gcc", "ld"])
def test_any_linker_will_do(
    build_linear: Callable[..., CompiledModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linker: str
) -> None:
    for tool in {linker, "ld"}:
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path))
    build_linear(targets.resolve("host")).save(tmp_path / "model.qtr")
    load(tmp_path / "model.qtr").self_test()


def test_no_cross_linker_is_named(
    build_linear: Callable[..., CompiledModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, package = "arm-dotprod", "aarch64-linux-gnu"
    if targets.host_cpu().machine != "x86_64":
        other, package = "x86-avx2", "x86-64-linux-gnu"
    model = build_linear(targets.resolve(other))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TargetError, match=rf"saving a program for {other} .*apt install g\+\+-{package}"):
        model.save(tmp_path / "model.qtr")


@pytest.mark.skipif(
    targets.host_cpu().machine != "x86_64" or shutil.which("aarch64-linux-gnu-ld") is None,
    reason="needs a linker for aarch64 (Debian: binutils-aarch64-linux-gnu)",
)
def test_a_program_for_arm_is_saved_but_not_loaded(build_linear: Callable[..., CompiledModel], tmp_path: Path) -> None:
    path = tmp_path / "arm.qtr"
    build_linear(targets.resolve("arm-dotprod")).save(path)
    with zipfile.ZipFile(path) as archive:
        machine = struct.unpack("<H", archive.read("lib0.so")[18:20])[0]
        assert machine == ELF_AARCH64
        assert archive.read("golden.bin") == b""
    with pytest.raises(BundleError, match=r"target arm-dotprod .* needs an aarch64 CPU"):
        load(path)


def test_a_failing_linker_is_quoted(
    build_linear: Callable[..., CompiledModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linker = tmp_path / "g++"
    linker.write_text("#!/bin/sh\necho 'cannot find -lfoo' >&2\nexit 1\n")
    linker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    model = build_linear(targets.resolve("host"))
    model(np.zeros((2, 8), "float32"))
    with pytest.raises(QTorchRelayError, match=r"linking failed: .*g\+\+ -shared .*\n.*cannot find -lfoo"):
        model.save(tmp_path / "model.qtr")


LIGHT = """
import sys
from qtorch_relay.runtime import load
loaded = [name for name in ("torch", "tvm", "tvm_ffi") if name in sys.modules]
assert not loaded, f"importing the runtime loaded {loaded}"
model = load(sys.argv[1])
model.self_test()
loaded = [name for name in ("torch", "tvm") if name in sys.modules]
assert not loaded, f"running a bundle loaded {loaded}"
"""


def test_a_board_needs_neither_torch_nor_the_compiler(saved: Path) -> None:
    subprocess.run([sys.executable, "-c", LIGHT, str(saved)], check=True)


def test_standard_error_stays_quiet_and_may_be_closed(saved: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, str(saved)], check=True, capture_output=True)
    assert done.stderr == b""
    subprocess.run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", LIGHT, str(saved)], check=True)


def test_other_messages_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with ffi.without_scope_messages():
        os.write(2, b"[12:00:00] executable.cc:276: Warning: Scope Saving:\nsomething else\n")
    assert capfd.readouterr().err == "something else\n"


AFTER = """
import sys
from qtorch_relay.runtime import load
model = load(sys.argv[1])
import torch, tvm
out = model(torch.ones(2, 8))["positive"]
assert isinstance(out, torch.Tensor)
assert tvm.runtime.tensor(out.numpy()).shape == (2, 4)
model.self_test()
"""


def test_torch_and_tvm_may_be_imported_after_the_runtime(saved: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", AFTER, str(saved)], check=True)


def test_versions_are_recorded(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        data = json.loads(archive.read("manifest.json"))
    assert data["format_version"] == manifest.FORMAT_VERSION
    assert data["tvm_version"].startswith("0.27")
    assert [weight["offset"] % 64 for weight in data["variants"][0]["weights"]] == [0]
