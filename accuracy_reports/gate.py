"""Compares two runs: what changed, and whether the new one is past a limit. For use as a regression gate."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from accuracy_reports.record import INT8, OURS, Layer, Program, Record, Share
from qtorch_relay.errors import QTorchRelayError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
_MAX_SIZE_BYTES = 1 << 20
DEFAULT = "thresholds.toml"

Limit = Annotated[float, Field(ge=0)] | None


class ThresholdsError(QTorchRelayError):
    """Limits that cannot be read, or runs that cannot be compared."""


@dataclass(frozen=True, config=_CONFIG)
class AccuracyLimits:
    """In percentage points, for each program that both runs have; agreement: of qtorch_relay with PyTorch int8."""

    top1_drop_points: Limit = None
    top5_drop_points: Limit = None
    agreement_drop_points: Limit = None


@dataclass(frozen=True, config=_CONFIG)
class CodeLimits:
    """Of the new run: output codes of qtorch_relay, and elements of all layers, that are not PyTorch int8's."""

    differing: Limit = None
    differing_in_layers: Limit = None


@dataclass(frozen=True, config=_CONFIG)
class LayerLimits:
    """In dB, float to qtorch_relay."""

    sqnr_drop_db: Limit = None


@dataclass(frozen=True, config=_CONFIG)
class LatencyLimits:
    """In percent: qtorch_relay's latency as a multiple of PyTorch int8's in the same run."""

    slower_than_int8_percent: Limit = None


@dataclass(frozen=True, config=_CONFIG)
class Thresholds:
    """All limits; None is not checked."""

    accuracy: AccuracyLimits = field(default_factory=AccuracyLimits)
    codes: CodeLimits = field(default_factory=CodeLimits)
    layers: LayerLimits = field(default_factory=LayerLimits)
    latency: LatencyLimits = field(default_factory=LatencyLimits)


@dataclass(frozen=True)
class Check:
    """One comparison. change: by how much the new run is worse (less than 0: better), None where it has no number.

    limit: its name in thresholds.toml and its value; unit: of change and limit.
    """

    what: str
    old: str
    new: str
    change: float | None
    unit: str
    limit_name: str
    limit: float

    @property
    def passes(self) -> bool:
        """Whether the change is within the limit; a hair more is rounding of the shares."""
        return self.change is not None and self.change <= self.limit + 1e-9

    def sentence(self) -> str:
        """Returns what was found, and for a failure the limit and by how much it is passed."""
        limit = f"the limit is {self.limit:g} {self.unit} ({self.limit_name})"
        if self.change is None:
            return f"{self.what}: {self.old} before, {self.new} now; it cannot be checked, {limit}"
        text = f"{self.what}: {self.new}" if self.old == "-" else f"{self.what}: {self.old} before, {self.new} now"
        if self.passes:
            return f"{text}; {limit}"
        return (
            f"{text}; worse by {self.change:.4g} {self.unit}, {self.change - self.limit:.4g} more than allowed: {limit}"
        )


def read_thresholds(path: Path | None) -> Thresholds:
    """Returns the limits of a TOML file; None = those that come with the package. Raises: ThresholdsError."""
    where = f"the built-in {DEFAULT}" if path is None else str(path)
    try:
        if path is None:
            text = resources.files("accuracy_reports").joinpath(DEFAULT).read_text()
        else:
            if path.stat().st_size > _MAX_SIZE_BYTES:
                raise ThresholdsError(f"{where} is larger than 1 MiB; limits are a few lines of TOML")
            text = path.read_text()
        return TypeAdapter(Thresholds).validate_python(tomllib.loads(text))
    except OSError as error:
        raise ThresholdsError(
            f"cannot read {where}: {error.strerror or error}; give a file of limits in TOML"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ThresholdsError(f"{where} is not TOML: {error}") from error
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        raise ThresholdsError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; accepted are {', '.join(_names())}"
        ) from None


def _names() -> list[str]:
    tables = TypeAdapter(Thresholds).dump_python(Thresholds())
    return [f"{table}.{name}" for table, limits in tables.items() for name in limits]


def compare_records(old: Record, new: Record, limits: Thresholds) -> tuple[Check, ...]:
    """Returns all checks, those that fail first. Raises: ThresholdsError if the runs saw different images."""
    _check_same_images(old, new)
    checks = [
        *_accuracy_checks(old, new, limits.accuracy),
        *_code_checks(new, limits.codes),
        *_layer_checks(old, new, limits.layers),
        *_latency_checks(old, new, limits.latency),
    ]
    return tuple(sorted(checks, key=lambda check: check.passes))


def _check_same_images(old: Record, new: Record) -> None:
    a, b = old.dataset, new.dataset
    if a.sha256 is not None and b.sha256 is not None:
        same = a.sha256 == b.sha256
    else:
        same = (a.name, a.images) == (b.name, b.images)
    if not same or a.preprocessing != b.preprocessing:
        raise ThresholdsError(
            f"the runs saw different images: {a.name}, {a.images} images, {a.preprocessing or 'as they are'}, and "
            f"{b.name}, {b.images} images, {b.preprocessing or 'as they are'}; compare runs on the same images"
        )


def _accuracy_checks(old: Record, new: Record, limits: AccuracyLimits) -> Iterator[Check]:
    for before in old.programs:
        if before.problem is not None:
            continue
        after = new.program(before.name)
        for name, label in (("top1", "top-1"), ("top5", "top-5"), ("agreement", "same answer as PyTorch int8")):
            limit = getattr(limits, f"{name}_drop_points")
            share: Share | None = getattr(before, name)
            if limit is None or share is None or (name == "agreement" and before.name != OURS):
                continue
            yield _share_check(f"{label}, {before.name}", share, _share_of(after, name), name, limit)


def _share_of(program: Program | None, name: str) -> Share | None:
    share: Share | None = None if program is None else getattr(program, name)
    return share


def _share_check(what: str, before: Share, after: Share | None, name: str, limit: float) -> Check:
    limit_name = f"accuracy.{name}_drop_points"
    found = "no number" if after is None else f"{after.value:.2%}"
    change = None if after is None else 100 * (before.value - after.value)
    return Check(what, f"{before.value:.2%}", found, change, "points", limit_name, limit)


def _code_checks(new: Record, limits: CodeLimits) -> Iterator[Check]:
    ours = new.program(OURS)
    if limits.differing is not None and ours is not None and ours.differing is not None:
        count, kind = ours.differing.count, ours.outputs_are
        found = f"{count:,} of {ours.differing.of:,}"
        yield Check(f"output {kind} that differ", "-", found, count, kind, "codes.differing", limits.differing)
    if limits.differing_in_layers is not None and new.layers is not None:
        count = sum(layer.compiler.differing for layer in new.layers.layers)
        total = sum(layer.compiler.of for layer in new.layers.layers)
        name, limit = "codes.differing_in_layers", limits.differing_in_layers
        yield Check("elements of layers that differ", "-", f"{count:,} of {total:,}", count, "elements", name, limit)


def _layer_checks(old: Record, new: Record, limits: LayerLimits) -> Iterator[Check]:
    if limits.sqnr_drop_db is None or old.layers is None:
        return
    after = {} if new.layers is None else dict(_keyed(new.layers.layers))
    for key, layer in _keyed(old.layers.layers):
        if layer.total is None or layer.total.sqnr_db is None:
            continue
        found = after.get(key)
        gap = None if found is None else found.total
        text, change = "no such layer", None
        if gap is not None:
            # without noise it cannot have got worse
            text = "no loss" if gap.sqnr_db is None else f"{gap.sqnr_db:.2f} dB"
            change = -layer.total.sqnr_db if gap.sqnr_db is None else layer.total.sqnr_db - gap.sqnr_db
        what = f"SQNR of {key[0]} ({key[1].partition('.')[0]})"
        before = f"{layer.total.sqnr_db:.2f} dB"
        yield Check(what, before, text, change, "dB", "layers.sqnr_drop_db", limits.sqnr_drop_db)


def _keyed(layers: tuple[Layer, ...]) -> Iterator[tuple[tuple[str, str, int], Layer]]:
    """Yields layers with what they are found by in another run: their name, op, and the how manieth of these."""
    seen: Counter[tuple[str, str]] = Counter()
    for layer in layers:
        place = (layer.scope, layer.op)
        yield (layer.scope or "the model itself", layer.op, seen[place]), layer
        seen[place] += 1


def _latency_checks(old: Record, new: Record, limits: LatencyLimits) -> Iterator[Check]:
    before, after = _latency_ratio(old), _latency_ratio(new)
    if limits.slower_than_int8_percent is None or before is None:
        return
    change = None if after is None else 100 * (after / before - 1)
    yield Check(
        "latency of qtorch_relay, as a multiple of PyTorch int8's",
        f"{before:.3f}",
        "no number" if after is None else f"{after:.3f}",
        change,
        "%",
        "latency.slower_than_int8_percent",
        limits.slower_than_int8_percent,
    )


def _latency_ratio(record: Record) -> float | None:
    ours, int8 = record.program(OURS), record.program(INT8)
    if ours is None or int8 is None or ours.latency_ms is None or not int8.latency_ms:
        return None
    return ours.latency_ms / int8.latency_ms
