"""Datasets as NCSN and NCSNv2 saw them through torchvision: its resize and crop, its folders, its splits.

    Resize(s)        shorter side to s pixels, Pillow's antialiased bilinear filter on bytes
    CenterCrop(s)    offsets round((side - s) / 2), halves to even

    CIFAR10, MNIST, FASHIONMNIST, SVHN    Resize(s)
    CELEBA                                CenterCrop(140), Resize(s); the test split is partition 2 (19,962 images)
    LSUN                                  Resize(s), CenterCrop(s); the test split is the 300 validation images
    FFHQ                                  as stored in NCSNv2's LMDB database
    digits, photos, folder, npz, zip      as score_core.data serves them

The programs kept everything below ``<run>/datasets``, training and test part in folders of their own (``cifar10``,
``cifar10_test``). Both are looked into, then ``<run>/datasets`` itself, then the folder of all datasets
(:func:`score_core.data.sources.data_root`).
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from score_core.data.errors import DataError, MissingDataError
from score_core.data.preprocess import to_channels
from score_core.data.source import Request, Source, fingerprint
from score_core.data.sources import ALIASES, SOURCES, SPLITS, celeba, data_root, lsun

__all__ = ["center_crop", "load_torchvision_source", "resize_shorter"]

_EMBEDDED = "or take a configuration of the data that come with the package (digits.yml)"
_NATIVE = {"cifar10": 32, "svhn": 32, "mnist": 28, "fashion_mnist": 28}
"""Datasets whose images are small and stored in memory, with their size."""
_FOLDERS = {"fashion_mnist": "fmnist", "ffhq": ""}
"""Below ``<run>/datasets``, where it is not the name."""
_OFFICIAL = {"ffhq": "ffhq_lmdb"}
_CELEBA_CROP = 140


def resize_shorter(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [h, w, C] whose shorter side has ``size`` pixels (``torchvision.transforms.Resize(size)``)."""
    from PIL import Image

    height, width = image.shape[:2]
    if min(height, width) == size:
        return image
    # torchvision truncates the longer side
    wide = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image).resize((wide[1], wide[0]), Image.Resampling.BILINEAR)
    resized = np.asarray(picture)
    return resized[..., None] if grey else resized


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central [size, size, C] (``torchvision.transforms.CenterCrop(size)``); a view.

    Raises: DataError if a side is shorter.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise DataError(f"cannot crop {size}x{size} from {height}x{width} pixels")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


class _Resized:
    """A source whose images are resized by Pillow at every fetch."""

    def __init__(self, source: Source, size: int, channels: int) -> None:
        self.name, self.split, self.num_classes = source.name, source.split, source.num_classes
        self.shape = (size, size, channels)
        self.fingerprint = fingerprint(source.fingerprint, "Pillow bilinear", list(self.shape))
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        images, labels = self._source.fetch(indices)
        if images.shape[1:3] != self.shape[:2]:
            images = np.stack([resize_shorter(image, self.shape[0]) for image in images])
        return to_channels(images, self.shape[2]), labels


def _native(name: str) -> Callable[[Request], Source]:
    size = _NATIVE[name]

    def load(request: Request) -> Source:
        source = SOURCES[name].load(replace(request, image_size=size, num_channels=None))
        return _Resized(source, request.image_size, request.num_channels or source.shape[2])

    return load


def _celeba(request: Request) -> Source:
    # the crop alone: at 140 pixels the core's resize changes nothing
    split = "train" if request.split == "train" else "partition2"
    source = celeba.load(replace(request, split=split, image_size=_CELEBA_CROP, num_channels=None))
    return _Resized(source, request.image_size, request.num_channels or 3)


def _lsun(request: Request) -> Source:
    def convert(image: np.ndarray, size: int) -> np.ndarray:
        return center_crop(resize_shorter(image, size), size)

    return lsun.load(request, convert, "Pillow bilinear, central crop")


_LOADERS: dict[str, Callable[[Request], Source]] = {
    **{name: _native(name) for name in _NATIVE},
    "celeba": _celeba,
    "lsun": _lsun,
}


def load_torchvision_source(
    dataset: str,
    split: str,
    *,
    image_size: int,
    num_channels: int,
    datasets: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    category: str | None = None,
    download: bool = False,
) -> Source:
    """One split of a dataset, uint8 as before torchvision's ToTensor.

    Arguments:
        dataset: ``data.dataset``, in upper or lower case: CIFAR10, CELEBA, LSUN, FFHQ, MNIST, SVHN, digits, folder, ...
        split: ``train`` or ``test``.
        image_size, num_channels: of the images served.
        datasets: the run's ``datasets`` folder.
        path: the dataset's own file or folder, instead of a search.
        category: of LSUN.
        download: fetch what can be fetched into ``datasets``.

    Raises:
        MissingDataError: not on this machine; says what to put where.
        DataError: unknown name or split, impossible size, damaged files.
    """
    name = ALIASES.get(dataset.lower(), dataset.lower())
    key = _OFFICIAL.get(name, name)
    if key not in SOURCES or split not in SPLITS:
        known = ", ".join(sorted(SOURCES.keys() - _OFFICIAL.values()))
        raise DataError(f"unknown dataset or split: {dataset!r}, {split!r}; expected one of {known}; train or test.")
    load = _LOADERS.get(key, SOURCES[key].load)
    below = _FOLDERS.get(name, name)
    folder = Path(datasets) / below
    twin = [Path(datasets) / f"{below}_test"] if split == "test" and below else []
    roots = [*twin, folder, Path(datasets), data_root()]
    base = Request(
        key, split, image_size, num_channels, Path(datasets), None if path is None else Path(path), False, category
    )
    layout: Any = SOURCES[key].layout
    for root in roots if path is None and not layout.embedded else roots[:1]:
        try:
            return load(replace(base, root=root))
        except MissingDataError:
            continue
    if download:
        return load(replace(base, root=folder, download=True))
    wanted = layout.put.partition("; --config")[0].removesuffix(" (unpacked or not")
    raise _Missing(
        f"dataset {dataset!r} was not found: it is not in {', '.join(str(root) for root in dict.fromkeys(roots))}"
        f"{'' if path is None else f' nor at {path} (data.path)'}. Cure: put {wanted} into {folder}, name its place in "
        f"data.path of the configuration, {_EMBEDDED}."
    )


class _Missing(MissingDataError):
    """The same in the terms of these programs."""

    def __init__(self, message: str) -> None:
        DataError.__init__(self, message)
