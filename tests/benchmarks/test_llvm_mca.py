"""Which llvm-mca is taken, and what is said where there is none that will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import llvm_mca
from benchmarks.llvm_mca import McaError, newest_mca, version_of


def program(folder: Path, name: str, version: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Debian LLVM version {version}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(llvm_mca, "PACKAGES", tmp_path / "none")
    return tmp_path


def test_the_newest_is_taken(folder: Path) -> None:
    program(folder, "llvm-mca", "14.0.6")
    newest = program(folder, "llvm-mca-19", "19.1.7")
    program(folder, "llvm-mca-9", "9.0.1")
    assert newest_mca() == str(newest)
    assert version_of(str(newest)) == (19, 1)


def test_one_that_is_too_old_is_named(folder: Path) -> None:
    program(folder, "llvm-mca", "14.0.6")
    with pytest.raises(McaError, match=r"newest llvm-mca here is .*/llvm-mca of LLVM 14; .* apt install llvm-19"):
        newest_mca()


def test_none_is_said(folder: Path) -> None:
    with pytest.raises(McaError, match=r"there is no llvm-mca; .* apt install llvm-19"):
        newest_mca()


def test_a_program_of_no_version_is_refused(folder: Path) -> None:
    with pytest.raises(McaError, match="says no version of LLVM"):
        version_of(str(program(folder, "llvm-mca", "unknown")))
    with pytest.raises(McaError, match="cannot be run"):
        version_of(str(folder / "nothing"))
