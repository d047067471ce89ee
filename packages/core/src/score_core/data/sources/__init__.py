"""The table of datasets.

A dataset is a function from a :class:`score_core.data.source.Request` to a source, and a
:class:`score_core.data.layout.Layout` that says which files it reads. To add one: write its file, add its line to
:data:`SOURCES`.
"""

import os
from pathlib import Path

from score_core.data.errors import DataError
from score_core.data.layout import Dataset
from score_core.data.source import Request, Source
from score_core.data.sources import (
    celeba,
    cifar10,
    digits,
    ffhq_lmdb,
    folder,
    idx,
    imagenet32,
    lsun,
    npz,
    photos,
    svhn,
    tfrecord_images,
    zipped,
)

__all__ = ["ALIASES", "SOURCES", "SPLITS", "data_root", "load_source"]

SOURCES: dict[str, Dataset] = {
    "celeba": Dataset(celeba.load, celeba.LAYOUT),
    "celebahq": Dataset(tfrecord_images.load_celebahq, tfrecord_images.CELEBAHQ_LAYOUT),
    "cifar10": Dataset(cifar10.load, cifar10.LAYOUT),
    "digits": Dataset(digits.load, digits.LAYOUT),
    "fashion_mnist": Dataset(idx.load_fashion_mnist, idx.FASHION_LAYOUT),
    "ffhq": Dataset(tfrecord_images.load_ffhq, tfrecord_images.FFHQ_LAYOUT),
    "ffhq_lmdb": Dataset(ffhq_lmdb.load, ffhq_lmdb.LAYOUT),
    "folder": Dataset(folder.load, folder.LAYOUT),
    "imagenet32": Dataset(imagenet32.load, imagenet32.LAYOUT),
    "imagenet32_old": Dataset(imagenet32.load_old, imagenet32.OLD_LAYOUT),
    "imagenet64_old": Dataset(imagenet32.load_old_64, imagenet32.OLD_64_LAYOUT),
    "lsun": Dataset(lsun.load, lsun.LAYOUT),
    "mnist": Dataset(idx.load_mnist, idx.MNIST_LAYOUT),
    "npz": Dataset(npz.load, npz.LAYOUT),
    "photos": Dataset(photos.load, photos.LAYOUT),
    "svhn": Dataset(svhn.load, svhn.LAYOUT),
    "zip": Dataset(zipped.load, zipped.LAYOUT),
}

ALIASES = {"fashionmnist": "fashion_mnist"}
"""Other names (in lower case) that the originals' configurations use."""

SPLITS = ("train", "test")


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder in which datasets are looked for: ``root``, else the variable ``SCORE_DATA``, else ``data``."""
    return Path(root or os.environ.get("SCORE_DATA") or "data")


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
        dataset: a name of :data:`SOURCES` (or :data:`ALIASES`), in upper or lower case.
        split: ``train`` or ``test``.
        image_size: height and width of the images served, in pixels.
        num_channels: their number of channels; default: the dataset's own.
        root: folder in which datasets are looked for; default: see :func:`data_root`.
        path: the dataset's own file or folder, instead of a search below ``root``. Needed by folder, zip and npz.
        download: allow a dataset that can be fetched to be fetched into ``root`` if it is not there.
        category: part of a dataset that has categories (lsun).

    Raises:
        MissingDataError: the dataset is not on this machine; says what to put where.
        DataError: unknown name or split, impossible size, damaged files.
    """
    name = ALIASES.get(dataset.lower(), dataset.lower())
    if name not in SOURCES:
        raise DataError(f"unknown dataset {dataset!r}; expected one of {', '.join(sorted(SOURCES))}.")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r} of dataset {name!r}; expected one of {', '.join(SPLITS)}.")
    if image_size < 1 or (num_channels is not None and num_channels < 1):
        raise DataError(
            "image_size and num_channels must be at least 1, "
            f"found image_size={image_size}, num_channels={num_channels}."
        )
    return SOURCES[name].load(
        Request(
            dataset=name,
            split=split,
            image_size=image_size,
            num_channels=num_channels,
            root=data_root(root),
            path=None if path is None else Path(path),
            download=download,
            category=category,
        )
    )
