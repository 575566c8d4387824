"""llvm-mca, LLVM's machine code analyzer: how many cycles a loop takes on a CPU that LLVM has a model of, and why."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtorch_relay.errors import QTorchRelayError

OLDEST = 17
"""Models of LLVM before 17 take neoverse-n1 and neoverse-v1 for cortex-a57."""

PACKAGES = Path("/usr/lib")
"""Where Debian's packages put LLVM's versions."""

ITERATIONS = 200
IN_ORDER = {"cortex-a53", "cortex-a55", "cortex-a510"}

_UNITS = {
    "vector": r"(V\d*|VALU\d|VMAC|VMC|FPALU|FPMAC|FPMDS|W|X)",
    "load": r"(L\d*|Ld\d?|LdSt)",
    "store": r"(S|St|D)",
    "integer": r"(I|M\d?|ALU\d*|MAC|Div)",
    "branch": r"B",
}


class McaError(QTorchRelayError):
    """llvm-mca is missing, too old, or refuses what it is given."""


@dataclass(frozen=True)
class Simulation:
    """A loop on a CPU: cycles of an iteration, and how many the busiest of the CPU's units works.

    one_by_one: cycles that the instructions would take if each went alone, at the rate of as many like it.
    """

    cycles: float
    busiest_unit: str
    busiest_cycles: float
    one_by_one: float


def newest_mca() -> str:
    """Returns the path of the newest llvm-mca in the folders of programs and of LLVM's packages.

    Raises: McaError if there is none of LLVM 17 or newer.
    """
    found = sorted({path: version_of(path) for path in _programs()}.items(), key=lambda item: item[1])
    if found and found[-1][1] >= (OLDEST, 0):
        return found[-1][0]
    what = f"the newest llvm-mca here is {found[-1][0]} of LLVM {found[-1][1][0]}" if found else "there is no llvm-mca"
    raise McaError(f"{what}; models of ARM CPUs need that of LLVM {OLDEST} or newer: apt install llvm-19")


def _programs() -> Iterator[str]:
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(PACKAGES.glob("llvm-*/bin"))
    for folder in folders:
        for path in (*folder.glob("llvm-mca"), *folder.glob("llvm-mca-*")):
            if re.fullmatch(r"llvm-mca(-\d+)?", path.name) and shutil.which(path):
                yield str(path.resolve())


def version_of(mca: str) -> tuple[int, int]:
    """Returns LLVM's version of a program."""
    try:
        done = subprocess.run([mca, "--version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise McaError(f"{mca} cannot be run ({error.strerror}): apt install llvm-19") from error
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    if found is None:
        raise McaError(f"{mca} --version says no version of LLVM: {(done.stdout + done.stderr)[:200]!r}")
    return int(found[1]), int(found[2])


def simulate(mca: str, cpu: str, features: str, code: Sequence[str]) -> Simulation:
    """Returns how a loop of these instructions runs."""
    command = [mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-mattr={features}", "-json"]
    command.append(f"-iterations={ITERATIONS}")
    done = subprocess.run(command, input="\n".join(code) + "\n", capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise McaError(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    told = json.loads(done.stdout)
    [region] = told["CodeRegions"]
    unit, busy = _busiest(told["TargetInfo"]["Resources"], region, len(code))
    rates = [instruction["RThroughput"] for instruction in region["InstructionInfoView"]["InstructionList"]]
    return Simulation(region["SummaryView"]["TotalCycles"] / ITERATIONS, unit, busy, sum(rates))


def _busiest(units: Sequence[str], region: dict[str, Any], count: int) -> tuple[str, float]:
    """Returns the unit that works most cycles of an iteration."""
    cycles: Counter[int] = Counter()
    for use in region["ResourcePressureView"]["ResourcePressureInfo"]:
        # beyond the instructions are the sums
        if use["InstructionIndex"] < count:
            cycles[use["ResourceIndex"]] += use["ResourceUsage"]
    index = max(cycles, key=lambda unit: cycles[unit])
    name = units[index].split(".")[0].partition("Unit")[2]
    kind = next((kind for kind, pattern in _UNITS.items() if re.fullmatch(pattern, name)), "unit")
    return f"{kind} unit {name}", cycles[index]
