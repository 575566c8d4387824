"""Calibration data by path: labelled images of every kind, or plain arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from calibration.batches import ArrayBatches, Batch, Batches
from calibration.fusion import first_line
from qtorch_relay.errors import CalibrationError

if TYPE_CHECKING:
    from calibration.data import Dataset, Preprocessing

LABELS = "labels"
_IMAGES = "images"


@dataclass(frozen=True, eq=False)
class ImageBatches:
    """Images of a dataset, decoded each time they are gone through.

    order: which images, in which order. broken: "path: reason" of those that cannot be read; they are left out.
    """

    dataset: Dataset
    order: Any
    batch_size: int
    broken: dict[str, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(np.ceil(len(self.order) / self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        read = 0
        for batch in self.dataset.batches(self.order, self.batch_size):
            self.broken.update({f"{broken.path}: {broken.reason}": None for broken in batch.broken})
            if len(batch.indices):
                read += len(batch.indices)
                yield Batch((torch.from_numpy(batch.images),), torch.from_numpy(batch.labels))
        if not read:
            raise CalibrationError(f"{self.dataset.name}: none of {len(self.order)} images can be read")


@dataclass(frozen=True, eq=False)
class Data:
    """Batches, and what they are, in words."""

    name: str
    batches: Batches
    samples: int

    @property
    def broken(self) -> tuple[str, ...]:
        """The images that could not be read so far, each with the reason."""
        return tuple(self.batches.broken) if isinstance(self.batches, ImageBatches) else ()


def open_data(
    path: str,
    samples: int | None = None,
    batch_size: int = 32,
    preprocessing: Preprocessing | None = None,
    shuffled_by: int | None = None,
) -> Data:
    """Returns the data at a path.

    Args:
        path: what calibration.data.open_dataset takes; or a .npz file of arrays [N, ...], the model's inputs in order,
            and one named "labels" if there are labels.
        samples: so many, evenly spaced; None = all. More than there are is all.
        shuffled_by: a seed to draw their order with; None = as they are.

    Raises:
        DatasetError, CalibrationError, InvalidInputError: nothing is there, or it does not fit.
    """
    if batch_size < 1 or (samples is not None and samples < 1):
        raise CalibrationError(f"{samples} samples in batches of {batch_size}: accepted is 1 or more of both")
    if path.endswith(".npz") and Path(path).is_file() and not _has_labelled_images(Path(path)):
        if preprocessing is not None:
            raise CalibrationError(f"{path} holds arrays, not images and labels; leave the preprocessing out")
        return _open_arrays(Path(path), samples, batch_size, shuffled_by)
    try:
        from calibration.data import open_dataset
    except ImportError as error:
        raise CalibrationError(f"{error.name} is not installed; pip install 'qtorch-relay[accuracy]'") from error
    dataset = open_dataset(path, preprocessing)
    order = _order(len(dataset), samples, shuffled_by)
    return Data(
        f"{len(order)} of {len(dataset)} images of {dataset.name}", ImageBatches(dataset, order, batch_size), len(order)
    )


def _order(count: int, samples: int | None, shuffled_by: int | None) -> Any:
    taken = min(count, samples or count)
    order = np.arange(taken, dtype=np.int64) * count // taken
    return order if shuffled_by is None else np.random.default_rng(shuffled_by).permutation(order)


def _has_labelled_images(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{_IMAGES}.npy", f"{LABELS}.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # what is wrong with it is said by what reads it


def _open_arrays(path: Path, samples: int | None, batch_size: int, shuffled_by: int | None) -> Data:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path} is not a .npz file of plain arrays: {first_line(error)}") from None
    tensors = {name: _tensor(path, name, array) for name, array in arrays.items()}
    labels = tensors.pop(LABELS, None)
    if labels is not None and (labels.dim() != 1 or labels.is_floating_point()):
        raise CalibrationError(f"{path}: {LABELS} is {labels.dtype} {list(labels.shape)}; accepted are integers [N]")
    whole = ArrayBatches(tuple(tensors.values()), None if labels is None else labels.long(), batch_size)
    count = len(whole.inputs[0])
    order = torch.from_numpy(_order(count, samples, shuffled_by))
    taken = tuple(tensor[order] for tensor in whole.inputs)
    batches = ArrayBatches(taken, None if whole.labels is None else whole.labels[order], batch_size)
    return Data(f"{len(order)} of {count} samples of {path}", batches, len(order))


def _tensor(path: Path, name: str, array: Any) -> Tensor:
    if not isinstance(array, np.ndarray) or array.ndim < 1:
        raise CalibrationError(f"{path}: {name} is no array of samples, [N, ...]")
    try:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype == np.float64 else array.dtype))
    except TypeError as error:
        raise CalibrationError(f"{path}: {name} is {array.dtype}, which torch does not take") from error
