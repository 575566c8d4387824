"""Compiles many kernels into one program for 64-bit ARM and runs it under qemu-aarch64."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tvm_ffi.libinfo

from qtorch_relay import target as target_table
from qtorch_relay._tvm import PrimFunc, tvm

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
CPUS = {
    "arm-neon": "cortex-a53",
    "arm-dotprod": "cortex-a76",
    "arm-i8mm": "max",
    "arm-dotprod-in-order": "cortex-a76",
}
"""The CPU that has an ISA and as little as possible beyond it."""

TARGETS = {"arm-dotprod-in-order": "cortex-a55"}
"""The targets of ISAs that no target has the name of."""

_CODES = {"i": 0, "u": 1, "f": 2}


class Call(NamedTuple):
    """A call of a function by its number: inputs, and arrays with the shapes of the outputs."""

    function: int
    inputs: Sequence[np.ndarray]
    outs: Sequence[np.ndarray]


def missing() -> str | None:
    """Returns what this machine lacks to run ARM code, or None."""
    lacking = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    return f"{' and '.join(lacking)} (apt install gcc-aarch64-linux-gnu qemu-user)" if lacking else None


def build(isa: str, functions: Mapping[str, PrimFunc], folder: Path) -> Path:
    """Returns the path of a static program that calls these functions; see driver.c."""
    module = tvm.IRModule({name: func.with_attr("global_symbol", name) for name, func in functions.items()})
    compiled = tvm.compile(module, target=target_table.resolve(TARGETS.get(isa, isa)).to_tvm())
    compiled.mod.write_to_file(str(folder / "kernels.o"), "o")
    names = [f"__tvm_ffi_{name}" for name in functions]
    lines = ["#include <tvm/ffi/c_api.h>", "typedef int (*Kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);"]
    lines += [f"extern int {name}(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);" for name in names]
    lines += [f"const Kernel kernels[] = {{{', '.join(names)}}};"]
    (folder / "table.c").write_text("\n".join(lines) + "\n")
    program = folder / "kernels"
    include = tvm_ffi.libinfo.find_include_path()
    sources = [Path(__file__).with_name("driver.c"), folder / "table.c", folder / "kernels.o"]
    command = [COMPILER, "-O1", "-static", "-I", include, "-o", program, *sources, "-lm"]
    subprocess.run([str(part) for part in command], check=True, timeout=600)
    return program


def run(program: Path, cpu: str, calls: Sequence[Call]) -> list[list[np.ndarray]]:
    """Returns the outputs of every call, in one process; fails if one writes anything but its outputs."""
    given, written = program.with_suffix(".calls"), program.with_suffix(".outputs")
    with given.open("wb") as file:
        _numbers(file, len(calls))
        for call in calls:
            _numbers(file, call.function, len(call.inputs), len(call.outs))
            for array in call.inputs:
                _header(file, array)
                file.write(np.ascontiguousarray(array).tobytes())
            for array in call.outs:
                _header(file, array)
    done = subprocess.run(
        [EMULATOR, "-cpu", cpu, str(program), str(given), str(written)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    data = written.read_bytes()
    found, start = [], 0
    for call in calls:
        outputs = []
        for array in call.outs:
            outputs.append(np.frombuffer(data, array.dtype, array.size, start).reshape(array.shape))
            start += array.nbytes
        found.append(outputs)
    assert start == len(data)
    return found


def _header(file: BinaryIO, array: np.ndarray) -> None:
    """Writes DLPack's type code, bits and the shape."""
    _numbers(file, _CODES[array.dtype.kind], 8 * array.dtype.itemsize, array.ndim, *array.shape)


def _numbers(file: BinaryIO, *values: Any) -> None:
    file.write(struct.pack(f"<{len(values)}q", *values))
