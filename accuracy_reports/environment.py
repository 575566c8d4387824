"""Where a run is made: CPU, versions, command, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from accuracy_reports.record import Environment
from qtorch_relay._version import __version__
from qtorch_relay.target import host_cpu

_PACKAGES = ("torch", "torchvision", "apache-tvm", "onnxruntime", "numpy")
_GIT_TIMEOUT_S = 10.0


def describe_environment(command: str, num_threads: int | None = None, now: datetime | None = None) -> Environment:
    """Returns where and when a run is made. command: as the user gave it; now: in UTC, None = the clock's."""
    versions = {"qtorch_relay": __version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # it is not there, so it computed nothing
    return Environment(
        date=(now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        cpu=host_cpu().model,
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        versions=versions,
        command=command,
        commit=commit_of(Path.cwd()),
        num_threads=num_threads,
    )


def commit_of(folder: Path) -> str | None:
    """Returns the commit of the repository that a folder lies in, "+" behind it if files differ from it.

    None where there is no repository, or no git.
    """
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return None
    return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str:
    """Returns what git prints; "" where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
