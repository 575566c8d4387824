"""Images and labels in a .npz file: float32 as the network reads them, or uint8 pixels that are preprocessed."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from calibration.data.dataset import Dataset
from calibration.data.errors import BrokenImageError, DatasetError
from calibration.data.npz_rows import NpzRows
from calibration.data.preprocessing import Preprocessing

_FORM = (
    "it needs images, float32 [N, C, H, W] as the network reads them or uint8 [N, H, W] or [N, H, W, 3], and labels, "
    "integers [N]"
)


@dataclass(frozen=True, eq=False)
class FloatImages:
    """Images [N, C, H, W] float32 as the network reads them."""

    rows: NpzRows | npt.NDArray[np.float32]
    contents: str
    preprocessing: None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [C, H, W] of every image."""
        channels, height, width = self.rows.shape[1:]
        return channels, height, width

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Returns an image [C, H, W].

        Raises:
            BrokenImageError: the file ends before it.
        """
        row: npt.NDArray[np.float32] = _row(self.rows, index)
        return row


@dataclass(frozen=True, eq=False)
class PixelImages:
    """Images [N, H, W] or [N, H, W, 3] uint8, preprocessed like files."""

    rows: NpzRows
    preprocessing: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [3, H, W] of every image after preprocessing."""
        return self.preprocessing.shape

    @property
    def contents(self) -> str:
        """The checksum of the pixels, and the preprocessing."""
        return f"{self.rows.checksum} {self.preprocessing.to_json()}"

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Returns an image [3, H, W].

        Raises:
            BrokenImageError: the file ends before it.
        """
        return self.preprocessing(Image.fromarray(_row(self.rows, index)))


def _row(rows: Any, index: int) -> npt.NDArray[Any]:
    try:
        row: npt.NDArray[Any] = rows[index]
    except OSError as error:
        raise BrokenImageError(f"image {index}", str(error)) from error
    return row


def open_arrays(path: Path, preprocessing: Preprocessing | None) -> Dataset:
    """Returns the images and labels of a .npz file; what numpy.savez wrote stays on the disk until it is read.

    preprocessing: of uint8 images; None if none was asked for: the default one.

    Raises:
        DatasetError: not such a file, or preprocessing is asked for of what is preprocessed.
    """
    try:
        images, labels = NpzRows(path, "images"), NpzRows(path, "labels").all()
    except KeyError as error:
        raise DatasetError(f"{path}: there is no array named {error.args[0]}; {_FORM}") from None
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a .npz file of plain arrays: {error}") from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or images.shape[:1] != labels.shape:
        raise DatasetError(f"{path}: images {_form(images)}, labels {_form(labels)}; {_FORM}")
    name, ids = f"{path} (arrays)", tuple(map(str, range(len(labels))))
    numbers = labels.astype(np.int64)
    if images.dtype == np.float32 and len(images.shape) == 4:
        if preprocessing is not None:
            raise DatasetError(f"{path}: float32 images are preprocessed already; leave the preprocessing out")
        return Dataset(name, FloatImages(images, images.checksum), numbers, ids)
    if images.dtype == np.uint8 and (len(images.shape) == 3 or (len(images.shape) == 4 and images.shape[-1] == 3)):
        return Dataset(name, PixelImages(images, preprocessing or Preprocessing()), numbers, ids)
    raise DatasetError(f"{path}: images {_form(images)}; {_FORM}")


def _form(array: Any) -> str:
    return f"are {array.dtype} {list(array.shape)}"
