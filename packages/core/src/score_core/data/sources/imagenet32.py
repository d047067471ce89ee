"""Downsampled ImageNet, 32x32x3, in its two releases, which are different datasets: the newer one was made with an
antialiased filter and gives lower bits/dim, so results on the two must never be compared.

``imagenet32``: the newer release (P. Chrabaszcz et al., 2017), 1,281,167 training and 50,000 validation images.

    train_data_batch_1 .. 10, val_data       pickled dicts of ``data`` (uint8 [n, 3072], the channels one after the
                                             other) and ``labels`` (1 .. 1000, served as 0 .. 999)
    Imagenet32_train.zip, Imagenet32_val.zip the same, packed

``imagenet32_old``: the older release (A. van den Oord et al., 2016), 1,281,149 training and 49,999 validation images
without labels, on which the published bits/dim of score-based models were computed.

    train_32x32/, valid_32x32/               PNG files
    train_32x32.tar, valid_32x32.tar         the same, packed; read in place, after a pass over the headers

``imagenet64_old``: the same at 64x64 (train_64x64 and so on).

The split called ``test`` is the validation images. Other sizes are made at every fetch by an antialiased bilinear
resize. The newer release is held in memory (4 GB for training), the older is decoded at every fetch.
"""

from collections.abc import Sequence

import numpy as np

from score_core.data.encoded import EncodedSource
from score_core.data.errors import DataError
from score_core.data.layout import Layout, find
from score_core.data.preprocess import resize_bytes, to_channels
from score_core.data.source import Request, fingerprint
from score_core.data.untrusted import load_plain_pickle, named_files

__all__ = ["LAYOUT", "OLD_64_LAYOUT", "OLD_LAYOUT", "PlanarSource", "load", "load_old", "load_old_64"]

_PIXELS = 3 * 32 * 32
_BATCHES = {"train": [f"train_data_batch_{k}" for k in range(1, 11)], "test": ["val_data"]}
_ARCHIVES = {"train": "Imagenet32_train.zip", "test": "Imagenet32_val.zip"}
_OLD_STEMS = {"train": "train", "test": "valid"}

LAYOUT = Layout(
    "ImageNet at 32x32, newer release (antialiased), 1,000 classes",
    "Imagenet32_train.zip and Imagenet32_val.zip (or their files train_data_batch_1 .. 10 and val_data)",
    folders=("imagenet32", ""),
    files=("train_data_batch_1", "val_data", *_ARCHIVES.values()),
    image_size=32,
    counts={"train": 1_281_167, "test": 50_000},
)


def _old_layout(size: int) -> Layout:
    stems = [f"{stem}_{size}x{size}" for stem in _OLD_STEMS.values()]
    archives = [f"{stem}.tar" for stem in stems]
    return Layout(
        f"ImageNet at {size}x{size}, older release",
        f"{' and '.join(archives)} (or their folders {' and '.join(stems)})",
        folders=(f"imagenet{size}_old", ""),
        files=(*stems, *archives),
        image_size=size,
        counts={"train": 1_281_149, "test": 49_999},
    )


OLD_LAYOUT = _old_layout(32)
OLD_64_LAYOUT = _old_layout(64)


class PlanarSource:
    """Images in memory as several arrays uint8 [n, C H W], never copied together.

    Arguments:
        request: gives the name, the split, the size and the number of channels of what is served.
        parts: the arrays in order; 32x32 pixels, channels one after the other.
        labels: int64 of all of them.
        num_classes: number of classes.
    """

    def __init__(self, request: Request, parts: Sequence[np.ndarray], labels: np.ndarray, num_classes: int) -> None:
        size, channels = request.image_size, request.num_channels or 3
        to_channels(np.zeros((1, 1, 3), np.uint8), channels)  # an impossible number is said now
        self.name = request.dataset
        self.split = request.split
        self.shape = (size, size, channels)
        self.num_classes = num_classes
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self._labels = labels
        self.fingerprint = fingerprint(request.dataset, *parts, labels, "bilinear, rounded", list(self.shape))

    def __len__(self) -> int:
        return len(self._labels)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`score_core.data.source.Source`."""
        rows = np.empty((len(indices), _PIXELS), np.uint8)
        which = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(which):
            here = which == number
            begin = self._ends[number] - len(self._parts[number])
            rows[here] = self._parts[number][indices[here] - begin]
        images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        if self.shape[0] != 32:
            images = resize_bytes(images, self.shape[0])
        return np.ascontiguousarray(to_channels(images, self.shape[2])), self._labels[indices]


def _parse(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    content = load_plain_pickle(data, where)
    fields = content if isinstance(content, dict) else {}
    rows, labels = (fields.get(key, fields.get(key.encode())) for key in ("data", "labels"))
    if isinstance(labels, list) and all(isinstance(label, int) for label in labels):
        labels = np.array(labels, np.int64)
    if (
        not isinstance(rows, np.ndarray)
        or not isinstance(labels, np.ndarray)
        or rows.dtype != np.uint8
        or not np.issubdtype(labels.dtype, np.integer)
        or rows.shape != (labels.size, _PIXELS)
        or not labels.size
        or labels.min() < 1
        or labels.max() > 1000
    ):
        raise DataError(
            f"{where} is not a batch of ImageNet at 32x32: expected `data` uint8 (n, {_PIXELS}) and n `labels` "
            "1..1000. Cure: fetch it again."
        )
    return rows, labels.reshape(-1).astype(np.int64) - 1


def load(request: Request) -> PlanarSource:
    """The newer release; labels 0..999."""
    names = _BATCHES[request.split]
    place = find(request, LAYOUT, [names[0], _ARCHIVES[request.split]])
    place = place if place.suffix == ".zip" else place.parent
    sizes, read = named_files(place)
    absent = [name for name in names if name not in sizes]
    if absent:
        raise DataError(f"{place} lacks {', '.join(absent)}. Cure: fetch it again.")
    parts, labels = [], []
    for name in names:
        rows, numbers = _parse(read(name), f"{name} of {place}")
        parts.append(rows)
        labels.append(numbers)
    return PlanarSource(request, parts, np.concatenate(labels), num_classes=1000)


def load_old(request: Request) -> EncodedSource:
    """The older release at 32x32; no labels."""
    return _load_old(request, OLD_LAYOUT, "32x32")


def load_old_64(request: Request) -> EncodedSource:
    """The older release at 64x64; no labels."""
    return _load_old(request, OLD_64_LAYOUT, "64x64")


def _load_old(request: Request, layout: Layout, pixels: str) -> EncodedSource:
    stem = f"{_OLD_STEMS[request.split]}_{pixels}"
    place = find(request, layout, [stem, f"{stem}.tar"])
    sizes, read = named_files(place)
    names = sorted(name for name in sizes if name.endswith(".png") and not name.startswith("."))
    return EncodedSource(
        request,
        len(names),
        read=lambda i: read(names[i]),
        name=lambda i: names[i],
        place=str(place),
        convert=resize_bytes,
        fingerprint=fingerprint(
            request.dataset,
            names,
            [sizes[name] for name in names],
            "bilinear, rounded",
            [request.image_size, request.num_channels or 3],
        ),
    )
