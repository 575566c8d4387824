"""The function of every library that reads what Linux tells of the CPU; it must run on any CPU of its machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qtorch_relay import target as targets
from qtorch_relay.runtime import CompiledModel, tensors
from qtorch_relay.target import CPU_DESCRIPTION_BYTES, CPU_DESCRIPTION_FUNCTION

VECTOR_REGISTERS = {"x86_64": r"%[xyz]mm\d", "aarch64": r"\b[vqdz]\d+\b"}
OBJDUMP = {"x86_64": "objdump", "aarch64": "aarch64-linux-gnu-objdump"}


def test_a_library_knows_this_host(linear: CompiledModel) -> None:
    description = np.zeros(CPU_DESCRIPTION_BYTES, np.uint8)
    aligned = tensors.aligned(description)
    read = linear.program.module().get_function(CPU_DESCRIPTION_FUNCTION, query_imports=True)
    read(tensors.borrow(aligned))
    host = targets.host_cpu()
    assert targets.described_cpu(host.machine, aligned.tobytes()) == host
    assert host.flags


@pytest.mark.parametrize("name", ["x86-avx512vnni", "x86-amx", "arm-i8mm"])
def test_it_uses_no_vector_register(name: str, build_linear: Callable[..., CompiledModel], tmp_path: Path) -> None:
    target = targets.resolve(name)
    objdump = shutil.which(OBJDUMP[str(target.machine)]) or shutil.which("llvm-objdump")
    if objdump is None:
        pytest.skip("there is no disassembler for the machine")
    library = tmp_path / "lib.so"
    library.write_bytes(build_linear(target).program.library())
    code = subprocess.run([objdump, "-d", library], capture_output=True, text=True, check=True).stdout
    own = [part for part in code.split("\n\n") if CPU_DESCRIPTION_FUNCTION in part.partition("\n")[0]]
    assert any("fopen" in part for part in own)
    registers = VECTOR_REGISTERS[str(target.machine)]
    assert re.search(registers, code)
    assert not any(re.search(registers, part) for part in own)
