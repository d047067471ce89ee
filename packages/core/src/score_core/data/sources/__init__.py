"""The table of datasets, one file each.

A dataset is a function from a :class:`score_core.data.source.Request` to a source. To add one: write its file, add its
line to :data:`SOURCES`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from score_core.data.errors import DataError
from score_core.data.source import Request, Source
from score_core.data.sources import cifar10, digits, folder, npz, photos, zipped

__all__ = ["SOURCES", "SPLITS", "load_source"]

SOURCES: dict[str, Callable[[Request], Source]] = {
    "cifar10": cifar10.load,
    "digits": digits.load,
    "folder": folder.load,
    "npz": npz.load,
    "photos": photos.load,
    "zip": zipped.load,
}

SPLITS = ("train", "test")


def load_source(
    dataset: str,
    split: str,
    *,
    image_size: int,
    num_channels: int | None = None,
    root: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    download: bool = False,
    category: str | None = None,
) -> Source:
    """Open one split of a dataset.

    Arguments:
        dataset: a name of :data:`SOURCES`, in upper or lower case.
        split: ``train`` or ``test``.
        image_size: height and width of the images served, in pixels.
        num_channels: their number of channels; default: the dataset's own.
        root: folder in which datasets are looked for; default: the environment variable ``SCORE_DATA``, else ``data``
            in the current folder.
        path: the dataset's own file or folder, instead of a search below ``root``. Needed by folder, zip and npz.
        download: allow a dataset that can be fetched to be fetched into ``root`` if it is not there.
        category: part of a dataset that has categories.

    Raises:
        MissingDataError: the dataset is not on this machine; says what to put where.
        DataError: unknown name or split, impossible size, damaged files.
    """
    name = dataset.lower()
    if name not in SOURCES:
        raise DataError(f"unknown dataset {dataset!r}; expected one of {', '.join(sorted(SOURCES))}.")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of dataset {name!r}; expected one of {', '.join(SPLITS)}.")
    if image_size < 1 or (num_channels is not None and num_channels < 1):
        raise DataError(
            "image_size and num_channels must be at least 1, "
            f"found image_size={image_size}, num_channels={num_channels}."
        )
    return SOURCES[name](
        Request(
            dataset=name,
            split=split,
            image_size=image_size,
            num_channels=num_channels,
            root=Path(root or os.environ.get("SCORE_DATA") or "data"),
            path=None if path is None else Path(path),
            download=download,
            category=category,
        )
    )
