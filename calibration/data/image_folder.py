"""A folder with a folder of images for each class, as torchvision's ImageFolder and a sorted ImageNet have it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from calibration.data.dataset import Dataset
from calibration.data.errors import DatasetError
from calibration.data.image_files import ImageFiles, is_image
from calibration.data.preprocessing import Preprocessing

SPLITS = ("train", "val", "test", "validation")
_SYNSET = re.compile(r"n\d{8}")
_SHOWN = 5


def open_image_folder(folder: Path, preprocessing: Preprocessing, classes: Sequence[str] | None = None) -> Dataset:
    """Returns the images of a tree of class folders, sorted by class and name.

    classes: their names in the order of the model's outputs; None = the sorted names of the folders, which for ImageNet
        is the order that torchvision's weights have.

    Raises:
        DatasetError: there are no class folders, one of classes has none, or one is empty or foreign.
    """
    folders = class_folders(folder)
    splits = [name for name in SPLITS if name in folders]
    if splits and len(folders) <= len(SPLITS):
        raise DatasetError(f"{folder} holds {' and '.join(splits)}, which are no classes; give {folder / splits[-1]}")
    order = tuple(folders) if classes is None else tuple(classes)
    _check_folders(folder, folders, order)
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(order):
        found = [f"{name}/{image}" for image in images_below(folder / name)]
        if not found:
            raise DatasetError(f"{folder / name}: the class folder has no images")
        names += found
        labels += [label] * len(found)
    kind = "ImageNet in class folders" if all(_SYNSET.fullmatch(name) for name in order) else "class folders"
    images = ImageFiles(folder, tuple(names), preprocessing)
    return Dataset(f"{folder} ({kind})", images, np.array(labels, np.int64), tuple(names), order)


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted; hidden ones are left out.

    Raises:
        DatasetError: there are none.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DatasetError(f"{folder}: there are neither class folders nor ILSVRC2012_val_*.JPEG in it")
    return names


def images_below(folder: Path) -> list[str]:
    """Returns the images of a folder and all folders in it, relative to it, as torchvision's ImageFolder sorts them."""
    return list(_images_below(folder))


def _images_below(folder: Path) -> Iterator[str]:
    for root, _, names in sorted(os.walk(folder, onerror=_refuse, followlinks=True)):
        below = Path(root).relative_to(folder)
        yield from (str(below / name) for name in sorted(names) if is_image(name))


def _refuse(error: OSError) -> None:
    raise DatasetError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_folders(folder: Path, folders: Sequence[str], order: Sequence[str]) -> None:
    missing = [name for name in order if name not in set(folders)]
    if missing:
        raise DatasetError(f"{folder}: {_count(missing, 'class')} no folder: {_list(missing)}")
    foreign = [name for name in folders if name not in set(order)]
    if foreign:
        raise DatasetError(
            f"{folder}: {_count(foreign, 'folder')} no place in the list of classes: {_list(foreign)}; name it there, "
            "or move it away"
        )


def _count(names: Sequence[str], what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"1 {what} has" if len(names) == 1 else f"{len(names)} {plural} have"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
