"""Labelled images: folders, ImageNet as it comes, arrays, digits; decoded in parallel, preprocessed."""

from calibration.data.dataset import Batch, Broken, Dataset
from calibration.data.errors import BrokenImageError, DatasetError
from calibration.data.open import open_dataset
from calibration.data.preprocessing import Preprocessing, find_preprocessing

__all__ = [
    "Batch",
    "Broken",
    "BrokenImageError",
    "Dataset",
    "DatasetError",
    "Preprocessing",
    "find_preprocessing",
    "open_dataset",
]
