"""ImageNet's validation set as it comes: a flat folder of ILSVRC2012_val_*.JPEG, and a file with the ground truth."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from calibration.data.dataset import Dataset
from calibration.data.errors import DatasetError
from calibration.data.ground_truth import TRUTH_FILE, GroundTruth, read_ground_truth
from calibration.data.image_files import ImageFiles
from calibration.data.preprocessing import Preprocessing

_NAME = re.compile(r"(ILSVRC2012_val_(\d{8}))\.(?:JPEG|jpeg|JPG|jpg)")
_DEVKIT = Path("ILSVRC2012_devkit_t12") / "data"
_SHOWN = 3


def flat_names(folder: Path) -> list[str]:
    """Returns the files of a folder that are named like images of the validation set, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))


def open_flat_imagenet(
    folder: Path,
    names: Sequence[str],
    preprocessing: Preprocessing,
    labels_file: Path | None = None,
    synsets_file: Path | None = None,
    *,
    incomplete: bool = False,
) -> Dataset:
    """Returns the images of a flat folder with their labels in sorted synset order.

    names: what flat_names returns for it; labels_file, synsets_file: as read_ground_truth takes them; None = the
    devkit's files in the folder or near it. incomplete: images of the ground truth may be missing.

    Raises:
        DatasetError: there is no ground truth, or it tells of other images than there are.
    """
    path = labels_file or _find_truth(folder)
    truth = read_ground_truth(path, synsets_file)
    labels, expected = _labels(path, names, truth)
    if len(names) != expected and not incomplete:
        raise DatasetError(
            f"{folder}: there are {len(names)} images, {path} has labels of {expected}"
            f"{_missing(names, expected, truth)}; if that is meant, accept it with --incomplete"
        )
    images = ImageFiles(folder, tuple(names), preprocessing)
    ids = tuple(names)
    return Dataset(f"{folder} (ImageNet, flat)", images, np.array(labels, np.int64), ids, truth.synsets)


def _labels(path: Path, names: Sequence[str], truth: GroundTruth) -> tuple[list[int], int]:
    """Returns the label of each image, and how many images the ground truth knows."""
    matches = [match for name in names if (match := _NAME.fullmatch(name))]
    if truth.by_name is not None:
        unknown = [match[0] for match in matches if match[1] not in truth.by_name]
        _refuse_unknown(path, unknown)
        return [truth.by_name[match[1]] for match in matches], len(truth.by_name)
    assert truth.by_number is not None
    count = len(truth.by_number)
    _refuse_unknown(path, [match[0] for match in matches if not 1 <= int(match[2]) <= count])
    return [truth.by_number[int(match[2]) - 1] for match in matches], count


def _refuse_unknown(path: Path, unknown: Sequence[str]) -> None:
    if unknown:
        raise DatasetError(f"{path}: there is no label for {len(unknown)} images, such as {unknown[0]}")


def _missing(names: Sequence[str], expected: int, truth: GroundTruth) -> str:
    """Returns which images are missing, as text."""
    there = {match[1] for name in names if (match := _NAME.fullmatch(name))}
    known = truth.by_name or [f"ILSVRC2012_val_{number:08d}" for number in range(1, expected + 1)]
    missing = sorted(name for name in known if name not in there)
    return f"; missing: {', '.join(missing[:_SHOWN])}{', ...' if len(missing) > _SHOWN else ''}" if missing else ""


def _find_truth(folder: Path) -> Path:
    places = [folder, folder / _DEVKIT, folder.parent, folder.parent / _DEVKIT, folder.parent / "data"]
    for place in places:
        if (place / TRUTH_FILE).is_file():
            return place / TRUTH_FILE
    raise DatasetError(
        f"{folder} has ImageNet's validation images, but their labels are not there: put the devkit's {TRUTH_FILE} and "
        f"meta.mat into it or into {folder.parent / _DEVKIT}, or give a file with the labels with --labels FILE"
    )
