"""Finds out what a path holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calibration.data.arrays import open_arrays
from calibration.data.dataset import Dataset
from calibration.data.digits import TEST, TRAIN, open_digits
from calibration.data.errors import DatasetError
from calibration.data.image_folder import open_image_folder
from calibration.data.imagenet import flat_names, open_flat_imagenet
from calibration.data.preprocessing import Preprocessing

ACCEPTED = (
    "accepted are a folder with a folder of images for each class, a folder of ILSVRC2012_val_*.JPEG, a .npz file, "
    f"{TEST} and {TRAIN}"
)


def open_dataset(
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    labels_file: Path | None = None,
    synsets_file: Path | None = None,
    classes_file: Path | None = None,
    incomplete: bool = False,
) -> Dataset:
    """Returns the labelled images at a path.

    Args:
        path: a folder with a folder of images for each class; a folder of ImageNet's validation images as they come; a
            .npz file with images and labels; "digits" or "digits-train".
        preprocessing: of images that are pixels; None = that of most ImageNet weights. What is preprocessed takes none.
        labels_file: the ground truth of flat ImageNet; None = found in the folder or near it.
        synsets_file: the synset of each ILSVRC2012_ID: meta.mat or a text file; None = found beside the ground truth.
        classes_file: the names of the classes in the order of the model's outputs, one a line, for class folders;
            None = sorted.
        incomplete: images that the ground truth of flat ImageNet knows may be missing.

    Raises:
        DatasetError: nothing is there, or it is not whole.
        QTorchRelayError: digits are asked for, and scikit-learn is not installed.
    """
    given = {"--labels": labels_file, "--synsets": synsets_file, "--incomplete": incomplete, "--classes": classes_file}
    if str(path) in (TEST, TRAIN):
        if preprocessing is not None:
            raise DatasetError(f"{path}: the images are preprocessed already; leave the preprocessing out")
        _refuse(str(path), given)
        return open_digits(str(path))
    path = Path(path)
    if path.is_dir():
        names = flat_names(path)
        if names:
            _refuse(f"{path} (ImageNet, flat)", {"--classes": classes_file})
            used = preprocessing or Preprocessing()
            return open_flat_imagenet(path, names, used, labels_file, synsets_file, incomplete=incomplete)
        _refuse(f"{path} (class folders)", {**given, "--classes": None})
        classes = None if classes_file is None else _read_classes(classes_file)
        return open_image_folder(path, preprocessing or Preprocessing(), classes)
    if not path.exists():
        raise DatasetError(f"{path}: no such file or folder; {ACCEPTED}")
    if path.suffix != ".npz":
        raise DatasetError(f"{path} is no set of images; {ACCEPTED}")
    _refuse(str(path), given)
    return open_arrays(path, preprocessing)


def _refuse(what: str, given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value]
    if names:
        raise DatasetError(f"{what}: {', '.join(names)} means nothing for these images; leave it out")


def _read_classes(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as text: {getattr(error, 'strerror', None) or error}") from error
    # The names become paths below the folder of the images.
    wrong = [name for name in names if name in (".", "..") or "/" in name or "\\" in name or "\0" in name]
    if wrong or not names or len(set(names)) < len(names):
        problem = (
            f"{wrong[0]!r} is no name of a folder" if wrong else "a name is there twice" if names else "it is empty"
        )
        raise DatasetError(f"{path}: {problem}; it needs the name of a class folder on each line")
    return names
