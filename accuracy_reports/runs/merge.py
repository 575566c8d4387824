"""Puts the shards of a run together: each exactly once, and none that asks something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accuracy_reports.record import Environment, Record
from accuracy_reports.runs.coordinator import record_of
from accuracy_reports.runs.journal import JOURNAL, Header, JournalError, read_journal
from accuracy_reports.runs.totals import Totals


def merge(folders: Sequence[Path], command: str) -> Record:
    """Returns the record of the whole run whose shards lie in these folders.

    Raises:
        JournalError: a shard is missing, there twice, not done, or of another run.
    """
    opened = [read_journal(folder / JOURNAL) for folder in folders]
    headers = [header for header, _ in opened]
    _check(folders, headers)
    totals = Totals(headers[0].question)
    for folder, (header, results) in zip(folders, opened, strict=True):
        seen = set()
        for result in results:
            totals.add(result)
            seen.add(result.chunk)
        if len(seen) < len(header.chunks):
            raise JournalError(
                f"{folder}: {len(seen)} of {len(header.chunks)} chunks are done; finish it first, with the command "
                f"that began it: {header.environment.command}"
            )
    target = _joined([header.model.target for header in headers])
    environment = _environment([header.environment for header in headers], command)
    whole = replace(headers[0], model=replace(headers[0].model, target=target), environment=environment, shard=(1, 1))
    return record_of(whole, totals)


def _check(folders: Sequence[Path], headers: Sequence[Header]) -> None:
    first, by_shard = headers[0], dict[int, Path]()
    for folder, header in zip(folders, headers, strict=True):
        i, n = header.shard
        if n != first.shard[1]:
            raise JournalError(f"{folders[0]} is one of {first.shard[1]} shards, {folder} one of {n}; they overlap")
        if header.question != first.question:
            raise JournalError(f"{folder} and {folders[0]} differ in {', '.join(_differences(header, first))}")
        if i in by_shard:
            raise JournalError(f"{folder} and {by_shard[i]} are both shard {i}/{n}; give each once")
        by_shard[i] = folder
    missing = [f"{i}/{first.shard[1]}" for i in range(1, first.shard[1] + 1) if i not in by_shard]
    if missing:
        raise JournalError(f"shard {', '.join(missing)} is missing; run it with --shard, or give its folder")


def _differences(a: Header, b: Header) -> list[str]:
    """Returns what two questions differ in, in words."""
    words = {
        "sha256": "the model files",
        "dataset": "the images, their labels or preprocessing",
        "programs": "the programs",
        "missing": "the programs that are missing",
    }
    names = [name for name in vars(a.question) if getattr(a.question, name) != getattr(b.question, name)]
    return [words.get(name, name) for name in names if not name.startswith("_")]


def _environment(shards: Sequence[Environment], command: str) -> Environment:
    """Returns one environment for all: the last date, and what differs joined."""
    versions = {name: _joined([s.versions.get(name, "none") for s in shards]) for s in shards for name in s.versions}
    threads = {shard.num_threads for shard in shards}
    return replace(
        shards[0],
        date=max(shard.date for shard in shards),
        cpu=_joined([shard.cpu for shard in shards]),
        system=_joined([shard.system for shard in shards]),
        python=_joined([shard.python for shard in shards]),
        versions=versions,
        command=command,
        num_threads=threads.pop() if len(threads) == 1 else None,
    )


def _joined(values: Sequence[str]) -> str:
    return ", ".join(sorted(set(values)))
