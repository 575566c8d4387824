"""scikit-learn's images of handwritten digits, the data that is there without a download."""

from __future__ import annotations

import hashlib

import numpy as np

from calibration.data.arrays import FloatImages
from calibration.data.dataset import Dataset

TEST, TRAIN = "digits", "digits-train"


def open_digits(name: str) -> Dataset:
    """Returns the demo's test images ("digits", 360) or training images ("digits-train", 1437), [N, 1, 8, 8].

    Raises:
        QTorchRelayError: scikit-learn is not installed.
    """
    from qtorch_relay.demo.digits import load_digits

    digits = load_digits()
    images, labels = (
        (digits.test_images, digits.test_labels) if name == TEST else (digits.train_images, digits.train_labels)
    )
    array = np.ascontiguousarray(images.numpy(), np.float32)
    contents = f"sha256:{hashlib.sha256(array.tobytes()).hexdigest()}"
    ids = tuple(f"{name}/{i}" for i in range(len(labels)))
    part = "test" if name == TEST else "training"
    return Dataset(
        f"scikit-learn's digits ({part} images)",
        FloatImages(array, contents),
        labels.numpy().astype(np.int64),
        ids,
        tuple("0123456789"),
    )
