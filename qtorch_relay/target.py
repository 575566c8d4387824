"""Targets as data: a name, the CPU instructions it uses, how TVM is told, and whether this host can run it.

Neither torch nor tvm is imported here; `Target.to_tvm` imports tvm when it is called.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from qtorch_relay.boards import BOARDS, CPUS
from qtorch_relay.errors import TargetError

CUSTOM = "custom"
_CPUINFO, _AUXV = "/proc/cpuinfo", "/proc/self/auxv"
# A function in every compiled library that reads the file above, and how much of it: enough for the first of the CPUs.
CPU_DESCRIPTION_FUNCTION, CPU_DESCRIPTION_BYTES = "qtorch_relay_cpu_description", 16384


@dataclass(frozen=True)
class Target:
    """What a program is compiled for.

    machine: "x86_64" or "aarch64", as platform.machine() says it; None is any machine.
    triple: LLVM's target triple; None is that of the TVM which compiles.
    mcpu, mattr: LLVM's CPU name and features.
    cpu_flags: what the CPU must have, spelled as the Linux kernel spells it in /proc/cpuinfo.
    kernels: the name of the int8 kernels it uses; None takes the portable path, which gives the same codes.
    tvm_json: for a custom target, the tvm.target.Target it was made from, in TVM's own JSON.
    """

    name: str
    isa: str
    machine: str | None = None
    triple: str | None = None
    mcpu: str | None = None
    mattr: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    kernels: str | None = None
    tvm_json: str | None = None

    @property
    def has_kernels(self) -> bool:
        """Whether int8 kernels exist for it."""
        return self.kernels is not None

    def to_tvm(self) -> Any:
        """Returns the tvm.target.Target."""
        import tvm

        if self.tvm_json is not None:
            return tvm.target.Target(json.loads(self.tvm_json))
        options: dict[str, Any] = {"kind": "llvm"}
        if self.triple is not None:
            options["mtriple"] = self.triple
        if self.mcpu is not None:
            options["mcpu"] = self.mcpu
        if self.mattr:
            options["mattr"] = list(self.mattr)
        return tvm.target.Target(options)


@dataclass(frozen=True)
class HostCpu:
    """The CPU of a machine, this or another; flags as the Linux kernel spells them, model for messages."""

    machine: str
    flags: frozenset[str]
    model: str

    def missing(self, target: Target) -> str | None:
        """Returns what this CPU lacks to run a target ("the CPU flag avx512_vnni"), or None if it runs it."""
        if target.machine is not None and target.machine != self.machine:
            return f"an {target.machine} CPU"
        lacking = [flag for flag in target.cpu_flags if flag not in self.flags]
        if not lacking:
            return None
        return f"the CPU flag{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"


_V3_FLAGS = ("avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe")
_V4_FLAGS = (*_V3_FLAGS, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# LLVM's x86-64-v4 keeps its vectorizer to 256 bits for the sake of the first AVX-512 CPUs.
_FULL_WIDTH = "-prefer-256-bit"


def _x86(
    name: str, isa: str, mcpu: str, mattr: tuple[str, ...], flags: tuple[str, ...], kernels: str | None = None
) -> Target:
    return Target(name, isa, "x86_64", "x86_64-linux-gnu", mcpu, mattr, flags, kernels)


def _arm(name: str, isa: str, mattr: tuple[str, ...], flags: tuple[str, ...], kernels: str | None = None) -> Target:
    return Target(name, isa, "aarch64", "aarch64-linux-gnu", None, mattr, flags, kernels)


# Ordered from the least to the most able of each machine: the host takes the last one it can run.
TARGETS: tuple[Target, ...] = (
    Target("generic", "baseline instructions"),
    _x86("x86-avx2", "AVX2", "x86-64-v3", (), _V3_FLAGS, kernels="x86-avx2"),
    _x86("x86-avxvnni", "AVX-VNNI", "x86-64-v3", ("+avxvnni",), (*_V3_FLAGS, "avx_vnni"), kernels="x86-avxvnni"),
    _x86("x86-avx512", "AVX-512", "x86-64-v4", (_FULL_WIDTH,), _V4_FLAGS, kernels="x86-avx512"),
    _x86(
        "x86-avx512vnni",
        "AVX-512 VNNI",
        "x86-64-v4",
        ("+avx512vnni", _FULL_WIDTH),
        (*_V4_FLAGS, "avx512_vnni"),
        kernels="x86-avx512vnni",
    ),
    _x86(
        "x86-amx",
        "AMX int8",
        "x86-64-v4",
        ("+avx512vnni", "+amx-tile", "+amx-int8", _FULL_WIDTH),
        (*_V4_FLAGS, "avx512_vnni", "amx_tile", "amx_int8"),
        kernels="x86-amx",
    ),
    _arm("arm-neon", "NEON", ("+neon",), ("asimd",), kernels="arm-neon"),
    _arm("arm-dotprod", "NEON dotprod", ("+v8.2a", "+dotprod"), ("asimd", "asimddp"), kernels="arm-dotprod"),
    _arm("arm-i8mm", "NEON i8mm", ("+v8.2a", "+dotprod", "+i8mm"), ("asimd", "asimddp", "i8mm"), kernels="arm-i8mm"),
)
# Of these a CPU may have more than its target says, and a program for it must run on all that have what is said.
_UNUSED = ("-fullfp16", "-bf16", "-sve", "-sve2")


# What LLVM does not know of a CPU: the A55 loads two registers at once at a third of the speed of one after the other.
_TUNING = {"cortex-a55": ("+slow-paired-128",)}

# Kernels for CPUs that issue in order, where others run all instructions of their target as well.
_KERNELS = {"cortex-a55": "arm-dotprod-in-order"}


def _for_cpu(name: str, cpu: str) -> Target:
    """Returns the target of a CPU under a name: the instructions of its kernels, in the order that suits the CPU."""
    base = next(target for target in TARGETS if target.name == CPUS[cpu])
    mattr, kernels = (*base.mattr, *_UNUSED, *_TUNING.get(cpu, ())), _KERNELS.get(cpu, base.kernels)
    return replace(base, name=name, mcpu=cpu, mattr=mattr, kernels=kernels)


BOARD_TARGETS: tuple[Target, ...] = (
    *(_for_cpu(board.name, board.cpu) for board in BOARDS),
    *(_for_cpu(cpu, cpu) for cpu in CPUS),
)
"""Boards and CPUs by their names, for those who do not know what instructions they have."""

_BY_NAME = {target.name: target for target in (*TARGETS, *BOARD_TARGETS)}

# LLVM's feature names that matter for a custom target, and the kernel's names for the same thing.
_LLVM_FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "movbe": "movbe",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512ifma": "avx512ifma",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avxvnni": "avx_vnni",
    "gfni": "gfni",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    "neon": "asimd",
    "fullfp16": "asimdhp",
    "dotprod": "asimddp",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

# name: (AT_HWCAP or AT_HWCAP2, bit), from the Linux kernel's arch/arm64/include/uapi/asm/hwcap.h.
# From the auxiliary vector: an emulated board shows the emulator's host in /proc/cpuinfo.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_HWCAPS = {
    "asimd": (_AT_HWCAP, 1),
    "asimdhp": (_AT_HWCAP, 10),
    "asimddp": (_AT_HWCAP, 20),
    "sve": (_AT_HWCAP, 22),
    "sve2": (_AT_HWCAP2, 1),
    "i8mm": (_AT_HWCAP2, 13),
    "bf16": (_AT_HWCAP2, 14),
}


def names() -> tuple[str, ...]:
    """Returns every name `resolve` takes, "host" first, those of boards and CPUs last."""
    return ("host", *_BY_NAME)


def boards() -> list[dict[str, str]]:
    """Returns one row for each board and CPU: name, what it is, cpu, the target whose kernels it runs, and source."""
    rows = [(board.name, board.what, board.cpu, board.source) for board in BOARDS]
    rows += [(cpu, "any board with this CPU", cpu, "developer.arm.com/documentation") for cpu in CPUS]
    return [
        {"name": name, "what": what, "cpu": cpu, "target": CPUS[cpu], "source": source}
        for name, what, cpu, source in rows
    ]


def targets() -> list[dict[str, Any]]:
    """Returns one row for each target: name, isa, has_kernels, and missing: what this host lacks to run it, or None."""
    return [
        {
            "name": target.name,
            "isa": target.isa,
            "has_kernels": target.has_kernels,
            "missing": missing_on_host(target),
        }
        for target in TARGETS
    ]


def resolve(target: object) -> Target:
    """Returns the Target a name, a Target or a tvm.target.Target stands for.

    "host" is the best target this machine runs: one with int8 kernels if there is one, else the most able.

    Raises:
        TargetError: the name is unknown, or the tvm target is not for a CPU.
    """
    if isinstance(target, Target):
        return target
    if not isinstance(target, str):
        return _from_tvm(target)
    if target == "host":
        return _best_for_host()
    found = _BY_NAME.get(target)
    if found is None:
        raise TargetError(
            f"unknown target '{target}'; known are {', '.join(names())}, or any tvm.target.Target of kind llvm"
        )
    # A program for "generic" still is machine code: the machine that compiles it is the machine that runs it.
    return replace(found, machine=host_cpu().machine) if found.machine is None else found


def resolve_all(target: object) -> tuple[Target, ...]:
    """Returns the Targets of a list, of names with commas between them, or of whatever `resolve` takes.

    Raises:
        TargetError: as resolve does; or none is given, or one twice.
    """
    given = target.split(",") if isinstance(target, str) else target
    if not isinstance(given, list | tuple):
        return (resolve(given),)
    found = tuple(resolve(one.strip() if isinstance(one, str) else one) for one in given)
    if not found or len(set(found)) != len(found):
        raise TargetError(
            f"the targets are {', '.join(one.name for one in found) or 'none'}; give one or more, each once"
        )
    return found


def missing_on_host(target: Target) -> str | None:
    """Returns what this host lacks to run a target ("the CPU flag avx512_vnni"), or None if it runs it."""
    return host_cpu().missing(target)


def why_not_runnable(target: Target) -> str | None:
    """Returns what this host lacks to run a target, as missing_on_host does, or None if it runs it.

    A program may use AMX only after Linux has agreed; this asks it.
    """
    lacking = missing_on_host(target)
    if lacking is None and "amx_tile" in target.cpu_flags:
        return _why_no_tile_registers()
    return lacking


def check_runnable(target: Target) -> None:
    """Raises TargetError, naming what is missing, if this host cannot run a target."""
    lacking = why_not_runnable(target)
    if lacking is None:
        return
    runnable = [row.name for row in TARGETS if missing_on_host(row) is None]
    raise TargetError(
        f"target {target.name} ({target.isa}) needs {lacking}; this host ({host_cpu().model}) lacks it "
        f"and can run {', '.join(runnable)}"
    )


@lru_cache(maxsize=1)
def _why_no_tile_registers() -> str | None:
    """Asks Linux to let this process use AMX's tile registers; returns what is missing if it does not, or None.

    Source: the Linux kernel's Documentation/arch/x86/xstate.rst.
    """
    if platform.system() != "Linux":
        return "Linux, which must be asked for the tile registers of AMX"
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    refused = ctypes.CDLL(None, use_errno=True).syscall(arch_prctl, request_permission, tile_data)
    return f"Linux's permission to use AMX (arch_prctl: {os.strerror(ctypes.get_errno())})" if refused else None


@lru_cache(maxsize=1)
def host_cpu() -> HostCpu:
    """Returns this machine's CPU; unknown flags where neither /proc/cpuinfo nor the C library tells them."""
    machine = _machine_name(platform.machine())
    path = Path(cpu_description_path(machine))
    return described_cpu(machine, path.read_bytes() if path.exists() else b"")


def cpu_description_path(machine: str | None) -> str:
    """Returns the file in which Linux tells what the CPU of a machine has; `described_cpu` reads it."""
    return _AUXV if machine == "aarch64" else _CPUINFO


def described_cpu(machine: str, description: bytes) -> HostCpu:
    """Returns the CPU that the beginning of the file `cpu_description_path` describes."""
    if machine == "aarch64":
        return HostCpu(machine, _arm_flags(description), machine)
    fields: dict[str, str] = {}
    for line in description.rstrip(b"\0").decode(errors="replace").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    model = f"{machine}, {fields['model name']}" if "model name" in fields else machine
    return HostCpu(machine, frozenset(fields.get("flags", "").split()), model)


def _machine_name(raw: str) -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(raw.lower(), raw.lower())


def _arm_flags(auxiliary_vector: bytes) -> frozenset[str]:
    """Returns the flags among the pairs (type, value) of 64-bit words that Linux hands to every process."""
    pairs = struct.iter_unpack("<QQ", auxiliary_vector[: len(auxiliary_vector) // 16 * 16])
    words = dict(takewhile(lambda pair: pair[0] != 0, pairs))
    return frozenset(flag for flag, (word, bit) in _ARM_HWCAPS.items() if words.get(word, 0) >> bit & 1)


def _best_for_host() -> Target:
    runnable = [row for row in TARGETS if missing_on_host(row) is None]
    return resolve(([row for row in runnable if row.has_kernels] or runnable)[-1].name)


def _from_tvm(target: object) -> Target:
    """Returns a custom Target whose CPU flags are those of its mcpu and mattr, as LLVM knows them."""
    import tvm

    if not isinstance(target, tvm.target.Target):
        raise TargetError(
            f"a target is a name ({', '.join(names())}) or a tvm.target.Target, found {type(target).__name__}"
        )
    if target.kind.name != "llvm":
        raise TargetError(f"tvm target of kind '{target.kind.name}'; only CPU targets of kind llvm are supported")
    features = tvm.get_global_func("target.llvm_get_cpu_features")(target)
    flags = {_LLVM_FEATURES[str(feature)] for feature in features if str(feature) in _LLVM_FEATURES}
    triple = str(target.attrs.get("mtriple", "")) or str(tvm.get_global_func("target.llvm_get_system_triple")())
    machine = _machine_name(triple.split("-")[0])
    able = [row for row in TARGETS if row.has_kernels and row.machine == machine and flags.issuperset(row.cpu_flags)]
    return Target(
        name=CUSTOM,
        isa=able[-1].isa if able else f"{target.attrs.get('mcpu', machine)}",
        machine=machine,
        triple=triple,
        cpu_flags=tuple(sorted(flags)),
        kernels=able[-1].name if able else None,
        tvm_json=str(target),
    )
