"""Adds up chunks to what a record tells of each program. The order in which chunks come does not matter."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from accuracy_reports.record import FLOAT, INT8, OURS, BrokenImage, ChangedClass, Program, Share
from accuracy_reports.runs.chunks import TOP, Answers, ChunkResult
from accuracy_reports.runs.journal import Question

_MAX_CHANGED = 200_000


@dataclass
class _Sums:
    images: int = 0
    top1: int = 0
    top5: int = 0
    agreement: int = 0
    differing: int = 0
    differing_images: int = 0
    latencies_ms: array[float] = field(default_factory=lambda: array("d"))


class Totals:
    """The sums so far. Of the images only those that are broken or changed are kept."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._sums = {name: _Sums() for name in question.programs}
        self._changed: Counter[tuple[str, int, int, int]] = Counter()
        self._broken: dict[int, BrokenImage] = {}

    def add(self, result: ChunkResult) -> None:
        """Adds a chunk."""
        expected = result.answers.get(INT8)
        for name, answers in result.answers.items():
            self._add(self._sums[name], answers, result.labels, expected)
            if expected is not None:
                triples = zip(result.labels, expected.top, answers.top, strict=True)
                self._changed.update((name, label, a[0], b[0]) for label, a, b in triples if a[0] != b[0])
        for broken in result.broken:
            self._broken[broken.index] = BrokenImage(broken.path, broken.reason)

    def _add(self, sums: _Sums, answers: Answers, labels: tuple[int, ...], expected: Answers | None) -> None:
        sums.images += len(labels)
        sums.top1 += sum(top[0] == label for top, label in zip(answers.top, labels, strict=True))
        sums.top5 += sum(label in top for top, label in zip(answers.top, labels, strict=True))
        sums.latencies_ms.extend(answers.latency_ms)
        if expected is not None:
            sums.agreement += sum(a[0] == b[0] for a, b in zip(answers.top, expected.top, strict=True))
        if answers.differing is not None:
            sums.differing += sum(answers.differing)
            sums.differing_images += sum(count > 0 for count in answers.differing)

    @property
    def broken(self) -> tuple[BrokenImage, ...]:
        """The images that could not be read, in the order of the dataset."""
        return tuple(self._broken[index] for index in sorted(self._broken))

    @property
    def changed(self) -> tuple[ChangedClass, ...]:
        """The classes that changed, most images first."""
        order = sorted(self._changed.items(), key=lambda item: (-item[1], item[0]))
        return tuple(ChangedClass(*key, images) for key, images in order[:_MAX_CHANGED])

    @property
    def in_short(self) -> str:
        """What our program achieved so far, for a line of progress."""
        sums = self._sums.get(OURS)
        if sums is None or not sums.images:
            return ""
        changed = f", {sums.images - sums.agreement} answers changed" if INT8 in self._sums else ""
        return f"top-1 {sums.top1 / sums.images:.2%}{changed}"

    @property
    def programs(self) -> tuple[Program, ...]:
        """What each program achieved; those that could not be run stand behind them, with the reason."""
        missing = [Program(name, 0, problem=reason) for name, reason in self._question.missing.items()]
        return (*(self._program(name) for name in self._question.programs), *missing)

    def _program(self, name: str) -> Program:
        sums, logits, n = self._sums[name], self._question.logits, self._sums[name].images
        is_compared = INT8 in self._question.programs and name != FLOAT
        has_codes = is_compared and logits.scale is not None
        differing = Share.of_count(sums.differing, n * logits.classes) if is_compared else None
        total_ms = sum(sums.latencies_ms)
        calls = len(sums.latencies_ms)
        return Program(
            name,
            n,
            top1=Share.of_count(sums.top1, n),
            top5=Share.of_count(sums.top5, n) if logits.classes >= TOP else None,
            agreement=Share.of_count(sums.agreement, n) if INT8 in self._question.programs else None,
            differing_codes=differing if has_codes else None,
            differing_images=Share.of_count(sums.differing_images, n) if has_codes else None,
            differing_floats=None if has_codes else differing,
            latency_ms=median(sums.latencies_ms) if calls else None,
            batch=self._question.batch,
            images_per_s=n / total_ms * 1e3 if total_ms else None,
        )
