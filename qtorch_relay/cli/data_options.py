"""Options that say how images become what a network reads, and what they mean."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from qtorch_relay.errors import InvalidInputError

if TYPE_CHECKING:
    from calibration.data import Preprocessing

PreprocessingName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        metavar="NAME",
        help="What torchvision's weights want, as resnet50/IMAGENET1K_FBGEMM_V2 or inception_v3. Default: imagenet "
        "(resize 256, crop 224).",
    ),
]
Resize: TypeAlias = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="Shorter edge of an image, before the crop.")
]
Crop: TypeAlias = Annotated[int | None, typer.Option(metavar="PIXELS", help="Edge of the square from the middle.")]
Interpolation: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="nearest, bilinear, bicubic, lanczos.")
]
Mean: TypeAlias = Annotated[str | None, typer.Option(metavar="R,G,B", help="Taken away from pixels in 0 to 1.")]
Std: TypeAlias = Annotated[str | None, typer.Option(metavar="R,G,B", help="What they are divided by then.")]


def check_installed(*modules: str) -> None:
    """Raises InvalidInputError, which says how to install it, where a package of the extra `accuracy` is missing."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        raise InvalidInputError(f"{error.name} is not installed; pip install 'qtorch-relay[accuracy]'") from error


def choose_preprocessing(
    name: str | None,
    resize: int | None,
    crop: int | None,
    interpolation: str | None,
    mean: str | None,
    std: str | None,
) -> Preprocessing | None:
    """Returns the preprocessing that was asked for; None if none was.

    Raises:
        InvalidInputError: mean or std is not three numbers.
        DatasetError: a name or a setting is unknown.
    """
    from calibration.data import find_preprocessing

    settings = {
        "resize": resize,
        "crop": crop,
        "interpolation": interpolation,
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
    }
    if name is None and all(setting is None for setting in settings.values()):
        return None
    return find_preprocessing(name or "imagenet", **settings)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(value) for value in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 3:
        raise InvalidInputError(f"{option} is '{text}'; accepted are three numbers with commas, as 0.485,0.456,0.406")
    return values
