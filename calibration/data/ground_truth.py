"""Which class each image of ImageNet's validation set has, from the files that say so.

torchvision's weights number the classes by their sorted synsets (n01440764 tench is 0). The devkit numbers them by
ILSVRC2012_ID, another order (1 is n02119789, a fox): its ground truth means nothing without what translates the IDs,
which only the devkit's meta.mat has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.data.errors import DatasetError

TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"
META_FILE = "meta.mat"
_SYNSET = re.compile(r"n\d{8}")
_MAX_BYTES = 64 << 20
_KAGGLE_HEADER = "ImageId"


@dataclass(frozen=True)
class GroundTruth:
    """The labels of images: by_number of the image with that number, from 1; or by_name of the file without its suffix.

    synsets: the name of each label, sorted; None where only numbers are known.
    """

    by_number: Sequence[int] | None
    by_name: Mapping[str, int] | None
    synsets: tuple[str, ...] | None


def read_ground_truth(path: Path, synsets_file: Path | None) -> GroundTruth:
    """Returns the labels that a file tells, as sorted synset order numbers them.

    Its lines are all alike: an ILSVRC2012_ID (the devkit); a synset; an image and its label in sorted synset order, as
    in Caffe's val.txt; or an image and its synset, as in LOC_val_solution.csv.
    synsets_file: the devkit's meta.mat, or a text file with the synset of each ILSVRC2012_ID, line by line;
        None = the meta.mat beside path.

    Raises:
        DatasetError: it is none of these, or IDs have nothing that translates them.
    """
    lines = [line.replace(",", " ").split() for line in _read_text(path).splitlines() if line.strip()]
    if lines and lines[0][0] == _KAGGLE_HEADER:
        lines = lines[1:]
    if not lines:
        raise DatasetError(f"{path}: it has no lines")
    if all(len(words) == 1 for words in lines):
        return _numbered(path, [words[0] for words in lines], synsets_file)
    return _named(path, lines)


def _numbered(path: Path, words: list[str], synsets_file: Path | None) -> GroundTruth:
    if all(map(_SYNSET.fullmatch, words)):
        order = tuple(sorted(set(words)))
        labels = {synset: label for label, synset in enumerate(order)}
        return GroundTruth([labels[word] for word in words], None, order)
    wrong = next((i for i, word in enumerate(words) if not word.isdecimal()), None)
    if wrong is not None:
        raise DatasetError(f"{path}, line {wrong + 1}: {words[wrong]!r} is neither an ILSVRC2012_ID nor a synset")
    by_id = read_synsets(synsets_file or path.parent / META_FILE)
    order = tuple(sorted(by_id))
    labels_by_id = {i: order.index(synset) for i, synset in enumerate(by_id, 1)}
    wrong = next((i for i, word in enumerate(words) if int(word) not in labels_by_id), None)
    if wrong is not None:
        raise DatasetError(
            f"{path}, line {wrong + 1}: the label {words[wrong]} is out of range; accepted are the ILSVRC2012_IDs "
            f"1 to {len(by_id)}"
        )
    return GroundTruth([labels_by_id[int(word)] for word in words], None, order)


def _named(path: Path, lines: list[list[str]]) -> GroundTruth:
    short = next((i for i, words in enumerate(lines) if len(words) < 2), None)
    if short is not None:
        raise DatasetError(f"{path}: lines have one word and more, such as {' '.join(lines[short])!r}")
    names = [Path(words[0]).stem for words in lines]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DatasetError(f"{path}: the image {twice} is there twice")
    labels = [words[1] for words in lines]
    if all(map(_SYNSET.fullmatch, labels)):
        order = tuple(sorted(set(labels)))
        numbers = {synset: label for label, synset in enumerate(order)}
        return GroundTruth(None, dict(zip(names, (numbers[label] for label in labels), strict=True)), order)
    wrong = next((i for i, label in enumerate(labels) if not label.isdecimal()), None)
    if wrong is not None:
        raise DatasetError(f"{path}: the label {labels[wrong]!r} of {names[wrong]} is neither a number nor a synset")
    return GroundTruth(None, dict(zip(names, map(int, labels), strict=True)), None)


def read_synsets(path: Path) -> list[str]:
    """Returns the synset of each ILSVRC2012_ID, from 1, out of the devkit's meta.mat or a text file.

    Raises:
        DatasetError: missing, or not that.
    """
    if not path.exists():
        raise DatasetError(
            f"{path}: no such file; the ground truth has ILSVRC2012_IDs, whose synsets the devkit's {META_FILE} tells: "
            "put it beside the ground truth, or give it, or a text file with the synset of ID 1, 2, ... on its lines, "
            "with --synsets FILE"
        )
    synsets = _read_meta(path) if path.suffix == ".mat" else [line.split()[0] for line in _lines(path)]
    wrong = [synset for synset in synsets if not _SYNSET.fullmatch(synset)]
    if wrong or not synsets:
        raise DatasetError(f"{path}: {wrong[0] if wrong else 'nothing'!r} is no synset; one is written like n01440764")
    if len(set(synsets)) < len(synsets):
        raise DatasetError(f"{path}: a synset is there twice")
    if len(synsets) > 1 and synsets == sorted(synsets):
        raise DatasetError(
            f"{path}: the synsets are sorted, and ILSVRC2012_IDs do not number them in that order (1 is n02119789); "
            f"give the devkit's {META_FILE}"
        )
    return synsets


def _read_meta(path: Path) -> list[str]:
    """Returns the synsets of the classes in meta.mat, by ID; those that only group others have higher IDs."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise DatasetError(
            f"{path} is read by scipy; install it with: pip install 'qtorch-relay[accuracy]', or give a text file with "
            "the synset of ILSVRC2012_ID 1, 2, ... on its lines with --synsets FILE"
        ) from error
    try:
        rows = loadmat(path, squeeze_me=True, variable_names=["synsets"])["synsets"]
        found = {
            int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows.reshape(-1) if int(row["num_children"]) == 0
        }
    except (OSError, KeyError, ValueError, TypeError, IndexError, NotImplementedError, MatReadError) as error:
        raise DatasetError(f"{path} is not the devkit's {META_FILE}: {error}") from error
    if sorted(found) != list(range(1, len(found) + 1)):
        raise DatasetError(f"{path}: the ILSVRC2012_IDs of its {len(found)} classes are not 1 to {len(found)}")
    return [found[i] for i in sorted(found)]


def _lines(path: Path) -> list[str]:
    return [line for line in _read_text(path).splitlines() if line.strip()]


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DatasetError(f"{path}: it has more than {_MAX_BYTES >> 20} MB, too much for a list of labels")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as text: {error}") from error
