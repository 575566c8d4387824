"""Networks to run on boards: torchvision's eight with seeded weights, and the CNN that the demo trains."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from accuracy_reports.zoo import IMAGE_SIZES, quantized_model, random_images
from qtorch_relay.capture.engine import quantized_engine
from qtorch_relay.capture.torchscript import CapturedModel, capture_model
from qtorch_relay.demo.digits import Digits, DigitsNet, load_digits, quantize, train
from qtorch_relay.runtime.golden import rounded_to_steps

DIGITS = "digits"
NETWORKS = (DIGITS, *IMAGE_SIZES)
_DIGITS_COUNT = 20


def captured_network(name: str, engine: str, image_size: int | None) -> tuple[CapturedModel, list[npt.NDArray[Any]]]:
    """Returns a network, and inputs that it was not calibrated with: an image, or twenty digits."""
    if name == DIGITS:
        digits, network = _trained_digits()
        with quantized_engine(engine), torch.inference_mode():
            module: torch.nn.Module = quantize(network, digits, engine, _silent)
        images = digits.test_images[:_DIGITS_COUNT]
    else:
        module, shape = quantized_model(name, engine, image_size=image_size)
        images = random_images(1, shape[-1], seed=1)
    array = rounded_to_steps(np.ascontiguousarray(images.numpy()))  # as the golden input of a bundle is kept
    return capture_model(module, [("x", array.shape)], engine), [array]


@lru_cache(maxsize=1)
def _trained_digits() -> tuple[Digits, DigitsNet]:
    digits = load_digits()
    return digits, train(digits, _silent)


def _silent(items: Iterable[Any], _description: str) -> Iterable[Any]:
    return items
