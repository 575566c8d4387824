"""Links object files into a shared library, for this machine or another."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from qtorch_relay.errors import QTorchRelayError, TargetError
from qtorch_relay.target import Target, host_cpu

_TIMEOUT_S = 600
_HOST_LINKERS = ("g++", "c++", "clang++", "gcc", "cc", "clang", "ld")
# Debian's name of the package with the compilers for a machine.
_DEBIAN_PACKAGES = {"x86_64": "g++-x86-64-linux-gnu", "aarch64": "g++-aarch64-linux-gnu"}


def find_linker(target: Target) -> str:
    """Returns the path of a program that links for a target.

    Raises:
        TargetError: there is none; the message names the package to install.
    """
    for name in _linker_names(target):
        path = shutil.which(name)
        if path is not None:
            return path
    names = ", ".join(_linker_names(target))
    package = "g++" if _is_for_host(target) else _DEBIAN_PACKAGES.get(str(target.machine), f"g++ for {target.machine}")
    raise TargetError(
        f"saving a program for {target.name} needs a linker, and none of {names} is installed; "
        f"on Debian and Ubuntu install it with: apt install {package}"
    )


def link(linker: str, output: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
    """Links objects into the shared library output.

    options: where TVM's headers are; given for a program without code of its own, which TVM hands over as C.

    No library is named: the objects call only the C library and TVM's runtime, which the loading process has.

    Raises:
        QTorchRelayError: the linker failed; the message has its last lines.
    """
    command = [linker, "-shared", *options, "-o", output, *objects]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QTorchRelayError(f"linking failed: {error}") from error
    if done.returncode != 0:
        raise QTorchRelayError(f"linking failed: {' '.join(command)}\n{done.stderr[-2000:]}")


def _is_for_host(target: Target) -> bool:
    return target.machine in (None, host_cpu().machine)


def _linker_names(target: Target) -> tuple[str, ...]:
    if _is_for_host(target):
        return _HOST_LINKERS
    return tuple(f"{target.machine}-linux-gnu-{tool}" for tool in ("g++", "gcc", "ld"))
