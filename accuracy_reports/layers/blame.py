"""What layers compared three ways say: where a loss comes from, quantization or compiler, and which layer is worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accuracy_reports.record import Gap, Layer, Layers

# Higher than the SQNR of anything with 8 bits; what is better is rounding of float32.
EXACT_DB = 120.0


@dataclass(frozen=True)
class Split:
    """How the noise of a layer's total divides, in shares that add up to 1."""

    quantization: float
    compiler: float


@dataclass(frozen=True)
class Blame:
    """What to look at first.

    first_differing: the first layer, in the order of execution, where ours differs from PyTorch int8.
    compiler: layers that differ although no input of theirs does, most elements first.
    quantization: layers that lose most by being quantized, each by itself, the lowest SQNR first.
    """

    first_differing: Layer | None
    compiler: tuple[Layer, ...]
    quantization: tuple[Layer, ...]


def blame(layers: Layers) -> Blame:
    """Returns which layers to blame for what."""
    guilty = [layer for layer in layers.layers if layer.own_compiler]
    lossy = [layer for layer in layers.layers if own_sqnr_db(layer) is not None]
    return Blame(
        next((layer for layer in layers.layers if layer.compiler.differing), None),
        tuple(sorted(guilty, key=lambda layer: -layer.own_compiler)),
        tuple(sorted(lossy, key=lambda layer: own_sqnr_db(layer) or 0.0)),
    )


def own_sqnr_db(layer: Layer) -> float | None:
    """Returns the SQNR of what a layer alone loses by quantization; None where it loses nothing or nobody can say."""
    gap = layer.own_quantization
    if gap is None or gap.sqnr_db is None or gap.sqnr_db > EXACT_DB:
        return None
    return gap.sqnr_db


def worst_first(layers: Sequence[Layer]) -> list[Layer]:
    """Returns the layers ranked: faults of the compiler, then losses by quantization, then what loses nothing."""

    def rank(layer: Layer) -> tuple[int, float]:
        if layer.own_compiler:
            return 0, -layer.own_compiler
        own = own_sqnr_db(layer)
        return (2, 0.0) if own is None else (1, own)

    return sorted(layers, key=rank)


def split(layer: Layer) -> Split | None:
    """Divides a layer's loss by the power of the noise: float to PyTorch int8, and PyTorch int8 to ours.

    None where there is no counterpart in float, or no loss.
    """
    if layer.quantization is None:
        return None
    quantization, compiler = noise(layer.quantization), noise(layer.compiler)
    total = quantization + compiler
    return None if total == 0 else Split(quantization / total, compiler / total)


def noise(gap: Gap) -> float:
    """Returns the noise of a gap as a share of its signal, 1 / SQNR; 0 if there is none."""
    if gap.sqnr_db is not None:
        return 10 ** (-gap.sqnr_db / 10)
    return 0.0 if gap.differing == 0 else 1.0  # no signal: all of it is noise


def sentences(layers: Layers) -> list[str]:
    """Returns what was found, in words, the worst first."""
    found = blame(layers)
    elements = sum(layer.compiler.of for layer in layers.layers)
    differing = sum(layer.compiler.differing for layer in layers.layers)
    lines = []
    if found.first_differing is None:
        lines.append(
            f"Compiler: none of {elements:,} elements in {len(layers.layers)} layers differs from PyTorch int8 "
            f"({layers.images} images)."
        )
    else:
        lines.append(
            f"Compiler: {differing:,} of {elements:,} elements differ from PyTorch int8, first in "
            f"{describe(found.first_differing)}."
        )
        if found.compiler:
            names = ", ".join(f"{describe(layer)}: {layer.own_compiler:,}" for layer in found.compiler[:3])
            lines.append(f"Made there, from inputs that are equal: {names}.")
    if layers.float_model is None:
        lines.append("Quantization: not told, since there is no float model.")
    elif found.quantization:
        worst = found.quantization[0]
        lines.append(
            f"Quantization: {describe(worst)} loses most by itself, {own_sqnr_db(worst):.1f} dB SQNR on "
            "PyTorch int8's own inputs."
        )
    last = next((layer for layer in reversed(layers.layers) if layer.quantization is not None), None)
    shares = None if last is None else split(last)
    if last is not None and shares is not None and last.total is not None and last.total.sqnr_db is not None:
        lines.append(
            f"At the end ({describe(last)}) {last.total.sqnr_db:.1f} dB are left; of that loss "
            f"{shares.quantization:.1%} is quantization and {shares.compiler:.1%} the compiler."
        )
    lost = [layer for layer in layers.layers if layer.missing is not None]
    if lost and layers.float_model is not None:
        lines.append(f"{len(lost)} layers have no counterpart in the float model; the table says why.")
    return lines


def describe(layer: Layer) -> str:
    """Returns a layer's name and op."""
    return f"{layer.label} ({layer.op.partition('.')[0]})"
