"""The preprocessing is torchvision's, to the bit, and so is the table of what its weights want."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from accuracy_reports.zoo import import_torchvision
from calibration.data import Preprocessing, find_preprocessing
from calibration.data.torchvision_presets import PRESETS
from qtorch_relay.errors import InvalidInputError

import_torchvision()
from torchvision import models, transforms  # noqa: E402


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Returns a JPEG's pixels, decoded."""
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 20, (size[1], size[0], 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(file, "JPEG")
    return Image.open(file)


def test_every_preset_is_what_torchvision_evaluates_its_weights_with() -> None:
    wanted = {}
    for module in (models, models.quantization):
        for name in models.list_models(module=module):
            for weights in models.get_model_weights(name):
                preset = weights.transforms()
                wanted[f"{name.removeprefix('quantized_')}/{weights.name}"] = (
                    [Preprocessing(*preset.resize_size, *preset.crop_size, preset.interpolation.value)],
                    [pytest.approx(preset.mean), pytest.approx(preset.std)],
                )
    assert set(wanted) == set(PRESETS)
    for name, ([sizes], normalization) in wanted.items():
        found = find_preprocessing(name)
        assert (found.resize, found.crop, found.interpolation) == (sizes.resize, sizes.crop, sizes.interpolation), name
        assert [found.mean, found.std] == normalization, name


@pytest.mark.parametrize(
    "name", ["imagenet", "resnet50/IMAGENET1K_FBGEMM_V2", "inception_v3", "efficientnet_b1/IMAGENET1K_V1"]
)
@pytest.mark.parametrize(
    ("mode", "size"),
    [("RGB", (500, 375)), ("RGB", (333, 500)), ("L", (301, 300)), ("CMYK", (257, 256)), ("RGB", (90, 700))],
)
def test_every_bit_is_torchvisions(name: str, mode: str, size: tuple[int, int]) -> None:
    image, settings = picture(mode, size), find_preprocessing(name)
    theirs = models.ResNet18_Weights.IMAGENET1K_V1.transforms(
        resize_size=settings.resize,
        crop_size=settings.crop,
        interpolation=transforms.InterpolationMode(settings.interpolation),
        mean=settings.mean,
        std=settings.std,
    )
    np.testing.assert_array_equal(settings(image), theirs(image.convert("RGB")).numpy())


@pytest.mark.parametrize("size", [(20, 31), (33, 18), (32, 32), (21, 64)])
def test_a_crop_beyond_the_image_is_padded_as_torchvision_pads_it(size: tuple[int, int]) -> None:
    image, settings = picture("RGB", size), Preprocessing(resize=None, crop=32)
    theirs = transforms.Compose(
        [transforms.CenterCrop(32), transforms.ToTensor(), transforms.Normalize(settings.mean, settings.std)]
    )
    np.testing.assert_array_equal(settings(image), theirs(image).numpy())


def test_settings_can_be_overridden() -> None:
    found = find_preprocessing("inception_v3", resize=64, crop=None, mean=(0.0, 0.0, 0.0))
    assert (found.resize, found.crop, found.mean) == (64, 299, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("resnet50", {}, "say which: resnet50/IMAGENET1K_FBGEMM_V1, .*resnet50/IMAGENET1K_FBGEMM_V2"),
        ("resnet50/V7", {}, "unknown; accepted are resnet50/IMAGENET1K_FBGEMM_V1"),
        ("lenet", {}, "unknown; accepted are imagenet and torchvision's"),
        ("imagenet", {"crop": 0}, "crop is 0; accepted are 1 to"),
        ("imagenet", {"interpolation": "cubic"}, "accepted are nearest, bilinear"),
        ("imagenet", {"std": (1.0, 0.0, 1.0)}, "accepted are numbers above 0"),
        ("imagenet", {"mean": (1.0, float("nan"), 1.0)}, "three numbers"),
    ],
)
def test_what_is_unknown_is_refused(name: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        find_preprocessing(name, **overrides)
