"""What can be wrong with a set of images."""

from __future__ import annotations

from qtorch_relay.errors import QTorchRelayError


class DatasetError(QTorchRelayError):
    """A set of images cannot be used as it is: missing folders, too few images, labels out of range."""


class BrokenImageError(QTorchRelayError):
    """One image cannot be read; path says which, reason why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
