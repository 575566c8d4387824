"""A set of labelled images, wherever they come from, in batches that are decoded ahead."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from calibration.data.errors import BrokenImageError, DatasetError
from calibration.data.preprocessing import Preprocessing

_NAMES_IN_MESSAGE = 3


class Images(Protocol):
    """Images that can be read one by one, from several threads at once."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [C, H, W] of every image."""
        ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to the pixels; None where they are kept as the network reads them."""
        ...

    @property
    def contents(self) -> str:
        """Text that changes when what is read changes: preprocessing, checksums where they cost nothing."""
        ...

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """Returns an image [C, H, W] as the network reads it.

        Raises:
            BrokenImageError: it cannot be read.
        """
        ...


@dataclass(frozen=True)
class Broken:
    """An image that could not be read."""

    index: int
    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that could be read [n, C, H, W] float32, their indices and labels [n] int64; and those that could not."""

    indices: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    broken: tuple[Broken, ...]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    name: what it is, in words; labels: [N] int64; ids: a name for each image that stays, such as its path in the
    folder; classes: the name of each label, None where they have none.
    """

    name: str
    images: Images
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise DatasetError(f"{self.name}: there are no images")
        if len(self.ids) != len(self.labels):
            raise DatasetError(f"{self.name}: {len(self.ids)} images, but {len(self.labels)} labels")
        if self.classes is not None:
            self.check_labels(len(self.classes), "the dataset has")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape [C, H, W] of every image."""
        return self.images.shape

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over names, labels, classes and preprocessing; of the pixels of files it says nothing."""
        text = json.dumps([self.ids, self.labels.tolist(), self.classes, self.images.contents])
        return hashlib.sha256(text.encode()).hexdigest()

    def check_classes(self, count: int) -> None:
        """Refuses a dataset that does not fit a network with so many classes.

        Raises:
            DatasetError: labels out of range, or another number of classes.
        """
        if self.classes is not None and len(self.classes) != count:
            raise DatasetError(
                f"{self.name}: there are {len(self.classes)} classes, the model has {count}; a class without a folder "
                "moves the labels of all behind it, so give the missing folders, or all names in the model's order "
                "with --classes FILE"
            )
        self.check_labels(count, "the model has")

    def check_labels(self, count: int, whose: str) -> None:
        """Raises DatasetError for labels outside of 0 to count - 1."""
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= count))
        if wrong.size:
            found = ", ".join(f"{self.labels[i]} of {self.ids[i]}" for i in wrong[:_NAMES_IN_MESSAGE])
            raise DatasetError(
                f"{self.name}: {wrong.size} labels are out of range, such as {found}; "
                f"{whose} {count} classes, accepted are 0 to {count - 1}"
            )

    def spread(self, count: int | None) -> npt.NDArray[np.int64]:
        """Returns the indices of so many images, evenly spaced so that all classes of sorted folders have their share.

        count: None = all.
        Raises: DatasetError if there are fewer.
        """
        if count is None:
            return np.arange(len(self), dtype=np.int64)
        if not 1 <= count <= len(self):
            raise DatasetError(f"{self.name}: {count} images are asked for; accepted are 1 to {len(self)}")
        return np.arange(count, dtype=np.int64) * len(self) // count

    def batches(
        self, indices: Sequence[int] | npt.NDArray[np.int64], batch_size: int, workers: int | None = None
    ) -> Iterator[Batch]:
        """Yields the images of these indices, in order, batch_size indices a batch.

        workers: threads that decode ahead, about a batch; None = one for each CPU this process may use, 0 = none:
            images are read when they are asked for. Pillow and numpy do their work without Python's lock.
        Memory: two batches, and two images a worker.
        """
        read = self._read_ahead(indices, batch_size, cpus() if workers is None else workers)
        order = iter(indices)
        while part := list(itertools.islice(order, batch_size)):
            yield self._batch([int(index) for index in part], list(itertools.islice(read, len(part))))

    def _batch(self, indices: list[int], images: list[npt.NDArray[np.float32] | Broken]) -> Batch:
        whole = [image for image in images if not isinstance(image, Broken)]
        kept = np.array(
            [i for i, image in zip(indices, images, strict=True) if not isinstance(image, Broken)], np.int64
        )
        return Batch(
            kept,
            np.stack(whole) if whole else np.empty((0, *self.shape), np.float32),
            self.labels[kept],
            tuple(image for image in images if isinstance(image, Broken)),
        )

    def _read_ahead(
        self, indices: Sequence[int] | npt.NDArray[np.int64], batch_size: int, workers: int
    ) -> Iterator[npt.NDArray[np.float32] | Broken]:
        if workers == 0:
            yield from map(self._read, map(int, indices))
            return
        todo = map(int, indices)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        pending: deque[Future[npt.NDArray[np.float32] | Broken]] = deque()
        try:
            pending.extend(pool.submit(self._read, index) for index in itertools.islice(todo, batch_size + 2 * workers))
            while pending:
                image = pending.popleft().result()
                pending.extend(pool.submit(self._read, index) for index in itertools.islice(todo, 1))
                yield image
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: int) -> npt.NDArray[np.float32] | Broken:
        try:
            return self.images.read(index)
        except BrokenImageError as error:
            return Broken(index, error.path, error.reason)


def cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))
