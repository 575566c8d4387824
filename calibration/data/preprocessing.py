"""From a decoded image to what a network reads: resize, crop, normalize, as torchvision's weights were evaluated.

Equal to torchvision.transforms on PIL images to the bit, without torchvision: tests/calibration/data holds it to that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from calibration.data.torchvision_presets import IMAGENET_MEAN, IMAGENET_STD, PRESETS
from qtorch_relay.errors import InvalidInputError

DEFAULT = "imagenet"
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_SIZE = 8192


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an RGB image, in this order.

    resize: pixels of the shorter edge afterwards; None = the image stays as large as it is.
    crop: pixels of the square that is cut from the middle; black is added where the image is smaller.
    interpolation: of the resize, with antialiasing as PIL always does it (torchvision's antialias=True).
    mean, std: of each channel of pixels in 0 to 1; the network reads (pixel / 255 - mean) / std.
    """

    resize: int | None = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name, size in (("resize", self.resize), ("crop", self.crop)):
            if size is not None and not 1 <= size <= _MAX_SIZE:
                raise InvalidInputError(f"{name} is {size}; accepted are 1 to {_MAX_SIZE} pixels")
        if self.interpolation not in INTERPOLATIONS:
            raise InvalidInputError(
                f"interpolation {self.interpolation!r} is unknown; accepted are {', '.join(INTERPOLATIONS)}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite([*self.mean, *self.std]).all():
            raise InvalidInputError(f"mean {self.mean} and std {self.std} are not three numbers each")
        if min(self.std) <= 0:
            raise InvalidInputError(f"std is {self.std}; accepted are numbers above 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [3, H, W] of every image afterwards."""
        return 3, self.crop, self.crop

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Returns the image [3, crop, crop] as the network reads it."""
        rgb = self._resized(image.convert("RGB"))
        pixels = np.asarray(_center_crop(rgb, self.crop))
        out = np.empty(self.shape, np.float32)
        for channel, table in enumerate(self._tables):
            np.take(table, pixels[:, :, channel], out=out[channel], mode="clip")
        return out

    def __str__(self) -> str:
        size = "" if self.resize is None else f"resize {self.resize} ({self.interpolation}), "
        return f"{size}crop {self.crop}, mean {self.mean}, std {self.std}"

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON data."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @cached_property
    def _tables(self) -> npt.NDArray[np.float32]:
        """What each of the 256 values of a pixel becomes, [3, 256]: the arithmetic sees nothing else of an image."""
        pixels = np.arange(256, dtype=np.float32) / np.float32(255)
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))
        tables: npt.NDArray[np.float32] = (pixels - mean) / std
        return tables

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.resize is None:
            return image
        shorter, longer = sorted(image.size)
        # The longer edge is cut to whole pixels, not rounded, as torchvision does it.
        new_longer = int(self.resize * longer / shorter)
        size = (self.resize, new_longer) if image.width <= image.height else (new_longer, self.resize)
        return image if image.size == size else image.resize(size, INTERPOLATIONS[self.interpolation])


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    """Returns the middle of an image, size pixels square; halves are rounded as torchvision rounds them."""
    if image.width < size or image.height < size:
        padded = Image.new("RGB", (max(image.width, size), max(image.height, size)))
        padded.paste(image, (max(size - image.width, 0) // 2, max(size - image.height, 0) // 2))
        image = padded
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def find_preprocessing(name: str, **overrides: Any) -> Preprocessing:
    """Returns the preprocessing of that name with some settings changed; overrides that are None change nothing.

    name: "imagenet", the one of most weights; MODEL/WEIGHTS as torchvision names them, such as
        resnet50/IMAGENET1K_FBGEMM_V2; or MODEL alone where all its weights agree.

    Raises:
        InvalidInputError: the name is unknown or stands for several, or a setting is out of range.
    """
    found = Preprocessing() if name == DEFAULT else _of_weights(name)
    return replace(found, **{key: value for key, value in overrides.items() if value is not None})


def _of_weights(name: str) -> Preprocessing:
    if name in PRESETS:
        return Preprocessing(**PRESETS[name])
    weights = {preset: Preprocessing(**fields) for preset, fields in PRESETS.items() if preset.split("/")[0] == name}
    if len(set(weights.values())) == 1:
        return next(iter(weights.values()))
    if weights:
        raise InvalidInputError(
            f"the weights of {name} were evaluated with different preprocessing; say which: {', '.join(weights)}"
        )
    model, _, _ = name.partition("/")
    known = [preset for preset in PRESETS if preset.split("/")[0] == model]
    accepted = ", ".join(known) or f"{DEFAULT} and torchvision's classifiers, such as resnet50/IMAGENET1K_FBGEMM_V2"
    raise InvalidInputError(f"preprocessing {name!r} is unknown; accepted are {accepted}")
