"""Trees of small JPEGs in the layouts that real data sets have."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def write_image(path: Path, seed: int, size: tuple[int, int] = (24, 20)) -> None:
    """Writes a smooth random picture, width by height."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def synsets(count: int) -> list[str]:
    """Returns synsets by their ILSVRC2012_ID: not sorted, like the real ones."""
    names = [f"n{1_000_000 + 37 * i:08d}" for i in range(count)]
    random.Random(0).shuffle(names)
    return names


def write_meta(path: Path, by_id: Sequence[str]) -> None:
    """Writes the devkit's meta.mat: the classes, and behind them two synsets that only group others."""
    rows = [(i, name, 0) for i, name in enumerate(by_id, 1)] + [(len(by_id) + i, f"n9000000{i}", 2) for i in (1, 2)]
    fields = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    table = np.array([(i, name, "a word", children) for i, name, children in rows], fields)
    savemat(path, {"synsets": table.reshape(-1, 1)})


def write_flat(folder: Path, by_id: Sequence[str], ids: Sequence[int]) -> None:
    """Writes ImageNet's flat layout: an image for each ILSVRC2012_ID of ids, the ground truth and meta.mat beside."""
    folder.mkdir(parents=True)
    for number, _ in enumerate(ids, 1):
        write_image(folder / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    devkit = folder.parent / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in ids))
    write_meta(devkit / "meta.mat", by_id)


def sort_into_folders(flat: Path, folder: Path, by_id: Sequence[str], ids: Sequence[int]) -> None:
    """Writes the same images as a tree of class folders."""
    for name in by_id:
        (folder / name).mkdir(parents=True)
    for number, i in enumerate(ids, 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (folder / by_id[i - 1] / name).hardlink_to(flat / name)
