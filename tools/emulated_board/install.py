"""Sets the board up, once, in a cache folder: an arm64 root of Debian packages and the aarch64 wheels.

Needs no root rights: apt reads this system's package sources into a folder of its own, dpkg -x unpacks packages.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path

from qtorch_relay.errors import QTorchRelayError

ENVIRONMENT_VARIABLE = "QTORCH_RELAY_BOARD"
_DEFAULT_FOLDER = Path("~/.cache/qtorch_relay/board")
_TOOLS = {"qemu-aarch64": "qemu-user", "apt-get": "apt", "apt-cache": "apt", "dpkg": "dpkg"}
_DONE = "installed.json"
_LAYOUT = 1  # raised when the folder is to be made anew
_TIMEOUT_S = 1800

_PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in range(39, 16, -1)), "manylinux2014_aarch64", "any")

# What a bundle needs, and what TVM's RPC server needs beside it.
_WHEELS = (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "typing_extensions",
    "ml_dtypes",
    "psutil",
    "cloudpickle",
    "tornado",
)
# Programs to compare with. Without dependencies, which pip would choose for this machine: CUDA's libraries among them.
# PyTorch of this version: later wheels for ARM do not start without those libraries. ONNX Runtime of this one: later
# ones crash in qemu-user 7.2 when they are imported.
_EXTRAS = {
    "torch": (
        "torch==2.8.0",
        "filelock",
        "sympy",
        "mpmath",
        "networkx",
        "jinja2",
        "markupsafe",
        "fsspec",
        "setuptools",
    ),
    "onnxruntime": ("onnxruntime==1.22.1", "flatbuffers", "protobuf", "packaging"),
}
# Both sides of a bundle, of an RPC connection and of a comparison take the same version.
_SAME_VERSION = ("apache-tvm", "apache-tvm-ffi")

Say = Callable[[str], None]


class BoardError(QTorchRelayError):
    """The emulated board cannot be set up, or a program on it failed."""


def folder() -> Path:
    """Returns where the board is, or will be."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or _DEFAULT_FOLDER.expanduser()).absolute()


def extras() -> tuple[str, ...]:
    """Returns the names of programs that can be installed for comparison."""
    return tuple(_EXTRAS)


def why_unavailable() -> str | None:
    """Returns why there is no emulated board on this machine, after trying to set it up; None if there is one."""
    try:
        install()
    except BoardError as error:
        return str(error)
    return None


def install(wanted: Sequence[str] = (), say: Say = lambda _: None) -> Path:
    """Sets up what is not there yet and returns the board's folder.

    Args:
        wanted: names of extras(), each in a folder of its own.
        say: told what is being done.

    Raises:
        BoardError: a tool is missing, or a download failed; the message says which.
    """
    unknown = [name for name in wanted if name not in _EXTRAS]
    if unknown:
        raise BoardError(f"unknown: {', '.join(unknown)}; can be installed beside the board: {', '.join(_EXTRAS)}")
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            raise BoardError(
                f"the emulated board needs {tool}; on Debian and Ubuntu install it with: apt install {package}"
            )
    home = folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _lock(home):
            _part(home / "root", _root_description(), partial(_install_root, say=say))
            python = installed_python(home)
            for name, wheels in {"site": _WHEELS, **{name: _EXTRAS[name] for name in wanted}}.items():
                fill = partial(_install_wheels, wheels=wheels, python=python, say=say)
                _part(home / name, _wheel_description(wheels, python), fill)
    except OSError as error:
        raise BoardError(f"cannot set up the emulated board in {home}: {error}") from error
    return home


def installed_python(home: Path) -> str:
    """Returns the name of the board's Python, as in "python3.11"."""
    found = sorted((home / "root" / "usr" / "bin").glob("python3.*"))
    if not found:
        raise BoardError(f"there is no Python in {home / 'root'}; remove {home} and set the board up again")
    return found[0].name


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    with (home / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _part(goal: Path, description: dict[str, object], fill: Callable[[Path], None]) -> None:
    """Makes a folder by filling a new one beside it, unless it is there with this description already."""
    done = goal / _DONE
    if done.exists() and json.loads(done.read_text()) == description:
        return
    new = goal.with_name(f".{goal.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    fill(new)
    (new / _DONE).write_text(json.dumps(description))
    shutil.rmtree(goal, ignore_errors=True)
    new.rename(goal)


def _root_description() -> dict[str, object]:
    return {"layout": _LAYOUT}


def _wheel_description(wheels: Sequence[str], python: str) -> dict[str, object]:
    return {"layout": _LAYOUT, "python": python, "wheels": [_requirement(name) for name in wheels]}


def _requirement(name: str) -> str:
    if name not in _SAME_VERSION:
        return name
    try:
        return f"{name}=={_installed_version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _installed_version(name: str) -> str:
    return metadata.version(name).partition("+")[0]  # without "+cpu", of which there is none for ARM


def _install_root(new: Path, say: Say) -> None:
    apt_folder = new / "apt"
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (apt_folder / name).mkdir(parents=True)
    (apt_folder / "status").touch()
    options = [
        "APT::Architecture=arm64",
        "APT::Architectures=arm64",
        f"Dir::State={apt_folder}",
        f"Dir::State::status={apt_folder / 'status'}",
        f"Dir::Cache={apt_folder / 'cache'}",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    given = [word for option in options for word in ("-o", option)]
    say("reading the list of Debian's arm64 packages")
    _run(["apt-get", *given, "update"])
    packages = _root_packages(given)
    say(f"downloading {len(packages)} Debian packages for arm64")
    _run(["apt-get", *given, "download", *packages], cwd=apt_folder / "debs")
    for package in sorted((apt_folder / "debs").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(new)])
    shutil.rmtree(apt_folder)


def _root_packages(options: Sequence[str]) -> list[str]:
    """Returns the packages of the distribution's Python, and the libraries they and the wheels need."""
    text = _run(["apt-cache", *options, "depends", "python3-minimal"])
    found = re.search(r"(python3\.\d+)-minimal", text)
    if found is None:
        raise BoardError(
            "this system's package sources have no python3-minimal for arm64; on Ubuntu add ports.ubuntu.com to them"
        )
    python = found[1]
    without = [
        f"--no-{relation}" for relation in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    ]
    wanted = [f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6", "libgomp1"]
    lines = _run(["apt-cache", *options, "depends", "--recurse", *without, *wanted]).splitlines()
    names = {line.strip() for line in lines if not line.startswith((" ", "<"))}
    # Libraries alone: nothing is configured or started on the board.
    return sorted(name for name in names if re.match(r"lib|zlib|python3\.", name) and "perl" not in name)


def _install_wheels(new: Path, wheels: Sequence[str], python: str, say: Say) -> None:
    say(f"downloading wheels for aarch64: {', '.join(map(_requirement, wheels))}")
    downloads = new / "wheels"
    version = python.removeprefix("python3.")
    _run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        + ["--only-binary", ":all:", "--implementation", "cp", "--python-version", f"3.{version}"]
        + ["--abi", f"cp3{version}", "--abi", "abi3", "--abi", "none"]
        + [word for platform in _PLATFORMS for word in ("--platform", platform)]
        + ["--dest", str(downloads), *map(_requirement, wheels)]
    )
    for wheel in sorted(downloads.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(new)
    shutil.rmtree(downloads)


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Runs a command and returns what it prints.

    Raises:
        BoardError: it failed; the message has its last lines.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"setting up the emulated board failed: {error}") from error
    if done.returncode != 0:
        what = " ".join(word for word in command if not word.startswith("-"))[:200]
        raise BoardError(f"setting up the emulated board failed: {what}\n{(done.stderr or done.stdout)[-1500:]}")
    return done.stdout
