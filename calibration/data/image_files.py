"""Images in files, decoded by Pillow."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from calibration.data.errors import BrokenImageError
from calibration.data.preprocessing import Preprocessing

# The formats torchvision's ImageFolder looks for.
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files of a folder; names: relative to it."""

    folder: Path
    names: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [3, H, W] of every image."""
        return self.preprocessing.shape

    @property
    def contents(self) -> str:
        """The preprocessing; the files' contents would take too long to read."""
        return json.dumps(self.preprocessing.to_json())

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Returns an image [3, H, W], decoded and preprocessed.

        Raises:
            BrokenImageError: missing, not readable, truncated, no image, or too large to be one.
        """
        path = self.folder / self.names[index]
        try:
            with Image.open(path) as image:
                return self.preprocessing(image)
        except FileNotFoundError:
            raise BrokenImageError(str(path), "no such file") from None
        # What Pillow's decoders raise for files that are not what they say: truncated, altered, far too large.
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error) as error:
            raise BrokenImageError(str(path), _reason(error, path)) from error
        except Image.DecompressionBombError as error:
            raise BrokenImageError(str(path), str(error)) from error


def is_image(name: str) -> bool:
    """Says whether a file's name is that of an image; hidden files are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _reason(error: Exception, path: Path) -> str:
    """Returns what is wrong without the path, which Pillow puts into its message."""
    text = str(error).replace(repr(str(path)), "the file").replace(str(path), "the file")
    return text or type(error).__name__
