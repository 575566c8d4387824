"""Targets: the table, what "host" is, and what is said of targets that do not exist or do not run here."""

from __future__ import annotations

import struct

import pytest
import tvm

from qtorch_relay import target as targets
from qtorch_relay.errors import TargetError
from qtorch_relay.kernels.table import COMPATIBLE
from qtorch_relay.target import HostCpu

VNNI = frozenset(targets.resolve("x86-avx512vnni").cpu_flags)
AMX = VNNI | {"amx_tile", "amx_int8"}
DOTPROD = frozenset({"asimd", "asimddp"})
DESIGN_NAMES = (
    "x86-avx2", "x86-avxvnni", "x86-avx512", "x86-avx512vnni", "x86-amx", "arm-neon", "arm-dotprod", "arm-i8mm", "host",
    "generic",
)  # fmt: skip


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str, flags: frozenset[str]) -> None:
    monkeypatch.setattr(targets, "host_cpu", lambda: HostCpu(machine, flags, f"{machine}, pretended"))


def test_all_names_of_the_design_are_known() -> None:
    boards = {target.name for target in targets.BOARD_TARGETS}
    assert set(targets.names()) - boards == set(DESIGN_NAMES)
    assert {targets.resolve(name).name for name in DESIGN_NAMES if name != "host"} == set(DESIGN_NAMES) - {"host"}


@pytest.mark.parametrize(
    ("machine", "flags", "best"),
    [
        ("x86_64", frozenset(), "generic"),
        ("x86_64", frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}), "x86-avx2"),
        ("x86_64", VNNI - {"avx512_vnni"}, "x86-avx512"),
        ("x86_64", VNNI, "x86-avx512vnni"),
        ("x86_64", AMX, "x86-amx"),
        ("aarch64", frozenset({"asimd"}), "arm-neon"),
        ("aarch64", DOTPROD, "arm-dotprod"),
        ("aarch64", DOTPROD | {"i8mm"}, "arm-i8mm"),
        ("riscv64", frozenset(), "generic"),
    ],
)
def test_host_is_the_best_target_the_cpu_runs(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: frozenset[str], best: str
) -> None:
    pretend(monkeypatch, machine, flags)
    monkeypatch.setattr(targets, "_why_no_tile_registers", lambda: None)
    host = targets.resolve("host")
    assert host.name == best
    targets.check_runnable(host)


def test_linux_must_agree_to_tile_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", AMX)
    monkeypatch.setattr(targets, "_why_no_tile_registers", lambda: "Linux's permission to use AMX")
    with pytest.raises(TargetError, match=r"x86-amx .* needs Linux's permission"):
        targets.check_runnable(targets.resolve("x86-amx"))
    targets.check_runnable(targets.resolve("x86-avx512vnni"))


def test_a_host_without_amx_refuses_its_registers() -> None:
    if "amx_tile" in targets.host_cpu().flags:
        pytest.skip("this host has AMX")
    assert "permission" in str(targets._why_no_tile_registers()) or targets.host_cpu().machine != "x86_64"


def test_generic_is_for_the_machine_that_compiles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "riscv64", frozenset())
    assert targets.resolve("generic").machine == "riscv64"


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(TargetError, match=r"unknown target 'x86-sse9'; known are host, generic, x86-avx2"):
        targets.resolve("x86-sse9")


@pytest.mark.parametrize(
    ("name", "machine", "flags", "lacking"),
    [
        ("x86-amx", "x86_64", VNNI, "the CPU flags amx_tile, amx_int8"),
        ("x86-avx512vnni", "x86_64", VNNI - {"avx512_vnni"}, "the CPU flag avx512_vnni"),
        ("arm-i8mm", "aarch64", DOTPROD, "the CPU flag i8mm"),
        ("arm-neon", "x86_64", VNNI, "an aarch64 CPU"),
        ("x86-avx2", "aarch64", DOTPROD, "an x86_64 CPU"),
    ],
)
def test_what_a_host_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, machine: str, flags: frozenset[str], lacking: str
) -> None:
    pretend(monkeypatch, machine, flags)
    with pytest.raises(TargetError) as raised:
        targets.check_runnable(targets.resolve(name))
    assert f"target {name} " in str(raised.value)
    assert f"needs {lacking};" in str(raised.value)
    assert "can run generic" in str(raised.value)


def test_boards_are_named_once_and_say_their_cpu() -> None:
    rows = targets.boards()
    assert len({row["name"] for row in rows} | set(DESIGN_NAMES)) == len(rows) + len(DESIGN_NAMES)
    for row in rows:
        target, base = targets.resolve(row["name"]), targets.resolve(row["target"])
        assert (target.name, target.mcpu) == (row["name"], row["cpu"])
        assert (target.cpu_flags, target.isa) == (base.cpu_flags, base.isa)
        assert base.kernels in COMPATIBLE[target.kernels]
        assert row["what"]
        assert row["source"]


@pytest.mark.parametrize(
    ("board", "kernels", "cpu"),
    [
        ("raspberrypi3", "arm-neon", "cortex-a53"),
        ("raspberrypi4", "arm-neon", "cortex-a72"),
        ("raspberrypi5", "arm-dotprod", "cortex-a76"),
        ("jetson-nano", "arm-neon", "cortex-a57"),
        ("jetson-orin", "arm-dotprod", "cortex-a78ae"),
        ("graviton2", "arm-dotprod", "neoverse-n1"),
        ("graviton3", "arm-i8mm", "neoverse-v1"),
        ("cortex-a55", "arm-dotprod-in-order", "cortex-a55"),
    ],
)
def test_boards_that_people_have(board: str, kernels: str, cpu: str) -> None:
    target = targets.resolve(board)
    assert (target.kernels, target.mcpu, target.machine) == (kernels, cpu, "aarch64")


ALL = (*targets.TARGETS, *targets.BOARD_TARGETS)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_tvm_and_llvm_know_every_row(target: targets.Target) -> None:
    made = target.to_tvm()
    has = tvm.get_global_func("target.target_has_feature")
    assert made.kind.name == "llvm"
    for feature in target.mattr:
        # v8.2a is an architecture and prefer-256-bit a tuning; neither is among the features LLVM tells of a CPU.
        if feature.startswith("+") and feature != "+v8.2a":
            assert has(feature[1:], made), feature


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_llvm_uses_no_vector_extension_beyond_the_required_flags(target: targets.Target) -> None:
    as_custom = targets.resolve(target.to_tvm())
    assert set(as_custom.cpu_flags) <= {"avx", *target.cpu_flags} | (
        {"asimd"} if target.machine == "aarch64" else set()
    )


def test_tvm_target_keeps_its_options_and_gets_the_flags_of_its_cpu() -> None:
    given = tvm.target.Target({"kind": "llvm", "mcpu": "znver4", "mtriple": "x86_64-linux-gnu"})
    target = targets.resolve(given)
    assert target.name == "custom"
    assert target.kernels == "x86-avx512vnni"
    assert {"avx512_vnni", "avx512_bf16"} <= set(target.cpu_flags)
    assert str(target.to_tvm()) == str(given)


def test_tvm_target_of_another_machine() -> None:
    target = targets.resolve(tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+dotprod"]}))
    assert target.machine == "aarch64"
    assert "asimddp" in target.cpu_flags
    assert target.kernels == "arm-dotprod"


@pytest.mark.parametrize("wrong", [None, 3, ["x86-avx2"]])
def test_what_is_no_target_is_refused(wrong: object) -> None:
    with pytest.raises(TargetError, match=r"a target is a name .* or a tvm\.target\.Target, found"):
        targets.resolve(wrong)


def test_gpu_target_is_refused() -> None:
    with pytest.raises(TargetError, match="only CPU targets of kind llvm"):
        targets.resolve(tvm.target.Target({"kind": "c"}))


def test_this_host_is_known() -> None:
    host = targets.host_cpu()
    assert host.machine in ("x86_64", "aarch64")
    assert host.flags


def test_an_arm_cpu_is_known_by_its_auxiliary_vector() -> None:
    hwcaps = {16: 1 << 1 | 1 << 20, 26: 1 << 13, 6: 4096}
    pairs = b"".join(struct.pack("<QQ", *pair) for pair in hwcaps.items())
    behind_the_end = struct.pack("<QQQQ", 0, 0, 26, 1 << 14)
    cpu = targets.described_cpu("aarch64", pairs + behind_the_end + b"\1\2\3")
    assert cpu == HostCpu("aarch64", frozenset({"asimd", "asimddp", "i8mm"}), "aarch64")
    assert cpu.missing(targets.resolve("arm-i8mm")) is None
    assert cpu.missing(targets.resolve("x86-avx2")) == "an x86_64 CPU"


def test_nothing_is_known_of_a_cpu_that_tells_nothing() -> None:
    for machine in ("aarch64", "x86_64"):
        cpu = targets.described_cpu(machine, bytes(targets.CPU_DESCRIPTION_BYTES))
        assert cpu == HostCpu(machine, frozenset(), machine)
