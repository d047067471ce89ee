"""What a dataset is to the rest of the core: a random-access list of uint8 images with a name and a fingerprint.

A source holds whole numbers 0..255 in NHWC order; conversion to floating point belongs to whoever consumes the batch.
Sources that have no train/test split of their own are divided by :func:`split_indices` with a seed written here.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from score_core.data.counter_rng import Stream, permutation
from score_core.data.errors import DataError
from score_core.data.preprocess import to_channels

__all__ = ["SPLIT_SEED", "TEST_FRACTION", "ArraySource", "Request", "Source", "fingerprint", "split_indices"]

SPLIT_SEED = 20201126
"""Seed of the train/test split of every source that has none of its own."""

TEST_FRACTION = 0.1
"""Part of such a source that is the test split (rounded, at least one item of two or more)."""


class Source(Protocol):
    """Images ``0 .. len-1`` of one split of one dataset, all of one shape."""

    @property
    def name(self) -> str:
        """The dataset's name as in the table of sources."""
        ...

    @property
    def split(self) -> str:
        """``train`` or ``test``."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        ...

    @property
    def num_classes(self) -> int | None:
        """Labels are 0 .. num_classes-1; None when there are no labels."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of content and preprocessing: equal fingerprints serve equal images."""
        ...

    def __len__(self) -> int: ...

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Images uint8 [n, H, W, C] (a new array, the caller's to change) and labels int64 [n] or None."""
        ...


@dataclass(frozen=True)
class Request:
    """What :func:`score_core.data.load_source` was asked for; ``root`` is already resolved."""

    dataset: str
    split: str
    image_size: int
    num_channels: int | None
    root: Path
    path: Path | None = None
    download: bool = False
    category: str | None = None


def fingerprint(*parts: np.ndarray | str | int | float | bool | list[str] | list[int] | None) -> str:
    """SHA-256 over ``parts`` in order: arrays by dtype, shape and content, the rest by their JSON text."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def split_indices(n: int, split: str) -> np.ndarray:
    """The items (int64, ascending) of ``split`` in a dataset of ``n`` items that has no split of its own.

    The first ``max(1, round(TEST_FRACTION * n))`` items of a random order drawn with ``SPLIT_SEED`` are the test split,
    the others the train split; one item alone is for training.
    """
    num_test = max(1, round(TEST_FRACTION * n)) if n > 1 else 0
    order = permutation(SPLIT_SEED, Stream.SPLIT, 0, n)
    return np.sort(order[:num_test] if split == "test" else order[num_test:])


class ArraySource:
    """A source whose images lie in memory.

    Arguments:
        request: gives the name, the split and the size of what is served.
        images: uint8 [n, h, w, c] as stored.
        labels: integers [n], or None.
        num_classes: number of classes, or None.
        num_channels: channels of what is served (see :func:`score_core.data.preprocess.to_channels`).
        resize: uint8 [k, h, w, c] and the wanted size to uint8 [k, size, size, c]. It runs at every fetch, so that the
            memory needed is that of the stored images; it is not called when they have the wanted size already.
        recipe: words that name the preprocessing, for the fingerprint.
    """

    def __init__(
        self,
        request: Request,
        images: np.ndarray,
        labels: np.ndarray | None,
        *,
        num_classes: int | None,
        num_channels: int,
        resize: Callable[[np.ndarray, int], np.ndarray],
        recipe: str,
    ) -> None:
        if len(images) == 0:
            raise DataError(
                f"dataset {request.dataset!r} has no images in its {request.split} split; expected at least 1."
            )
        size = request.image_size
        to_channels(images[:1], num_channels)  # so that an impossible number is said now, not at the first batch
        self.name = request.dataset
        self.split = request.split
        self.shape = (size, size, num_channels)
        self.num_classes = num_classes
        self._images = images
        self._labels = None if labels is None else labels.astype(np.int64)
        self._resize = None if images.shape[1:3] == (size, size) else resize
        parts = [] if self._labels is None else [self._labels]
        self.fingerprint = fingerprint(images, *parts, recipe, list(self.shape))

    def __len__(self) -> int:
        return len(self._images)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`Source`."""
        images = np.take(self._images, indices, axis=0)
        if self._resize is not None:
            images = self._resize(images, self.shape[0])
        labels = None if self._labels is None else self._labels[indices]
        return to_channels(images, self.shape[2]), labels
