"""Images in a numpy archive: uint8 [n, H, W, C] with any number of channels, or [n, H, W] for grey ones.

    with a split:     x_train and x_test, or train_images and test_images, or train and test;
                      labels y_train and y_test, or train_labels and test_labels
    without:          images, samples, arr_0 (or the first train name alone, when there is no test one);
                      labels: labels, arr_1 (or the train labels). Divided by
                      :func:`score_core.data.source.split_indices`.

The first name found in this order counts. Labels are whole numbers from 0, [n] or [n, 1]. Images of another size than
asked for are cut to their central square and resized (antialiased bicubic, rounded).
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from score_core.data.errors import DataError, MissingDataError
from score_core.data.layout import Layout
from score_core.data.preprocess import resize_square
from score_core.data.source import ArraySource, Request, split_indices

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout(
    "your own images in a numpy archive", "your images into an npz file and name it with --config.data.path"
)

_SPLIT_KEYS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}", "{}_labels"))
_WHOLE_KEYS = (("images", "labels"), ("samples", "labels"), ("arr_0", "arr_1"))


def _keys(names: Sequence[str], split: str) -> tuple[str, str, bool] | None:
    """Names of the images and the labels to read, and whether they still have to be divided."""
    train = [tuple(key.format("train") for key in pair) for pair in _SPLIT_KEYS]
    for pair, (image_key, _) in zip(_SPLIT_KEYS, train, strict=True):
        if image_key in names and pair[0].format("test") in names:
            return pair[0].format(split), pair[1].format(split), False
    for image_key, label_key in (*_WHOLE_KEYS, *train):
        if image_key in names:
            return image_key, label_key, True
    return None


def _check_images(images: np.ndarray, where: str) -> np.ndarray:
    if images.dtype != np.uint8:
        found = f"{images.dtype} from {images.min()} to {images.max()}" if images.size else f"{images.dtype}"
        raise DataError(
            f"{where} holds {found}; expected uint8, whole numbers 0..255, as the scale of other numbers cannot be "
            "known. Cure: save numpy.clip(numpy.rint(scale * x + shift), 0, 255).astype(numpy.uint8), with scale 255 "
            "and shift 0 for values in [0, 1], 127.5 and 127.5 for values in [-1, 1], 1 and 0 for values in 0..255."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"{where} has shape {images.shape}; expected [n, H, W, C], or [n, H, W] for grey images.")
    _, first, second, last = images.shape
    if first <= 4 < second == last:
        raise DataError(
            f"{where} has shape {images.shape}, which looks like [n, C, H, W]; expected [n, H, W, C]. "
            "Cure: save images.transpose(0, 2, 3, 1)."
        )
    return images


def _check_labels(labels: np.ndarray, n: int, where: str) -> np.ndarray:
    if labels.shape == (n, 1):
        labels = labels[:, 0]
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer) or (n and labels.min() < 0):
        raise DataError(
            f"{where} holds {labels.dtype} {labels.shape}; expected {n} whole numbers from 0, one an image."
        )
    return labels.astype(np.int64)


def _load_arrays(path: Path, split: str) -> tuple[np.ndarray, np.ndarray | None, bool]:
    try:
        # Opened here, as numpy leaves a damaged file open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise DataError(f"{path} is not an npz archive. Cure: save the images with numpy.savez(f, images=...).")
            keys = _keys(archive.files, split)
            if keys is None:
                known = ", ".join(pair[0] for pair in _WHOLE_KEYS)
                raise DataError(
                    f"{path} holds {', '.join(archive.files) or 'nothing'}; expected the images under one of {known}, "
                    "or x_train and x_test."
                )
            image_key, label_key, divide = keys
            images = _check_images(archive[image_key], f"{image_key!r} of {path}")
            if label_key not in archive.files:
                return images, None, divide
            return images, _check_labels(archive[label_key], len(images), f"{label_key!r} of {path}"), divide
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}). Cure: make or fetch it again.") from error


def load(request: Request) -> ArraySource:
    """The images of the npz file ``path``."""
    path = request.path
    if path is None or not path.is_file():
        raise MissingDataError(request.dataset, path, LAYOUT.put)
    images, labels, divide = _load_arrays(path, request.split)
    num_classes = None if labels is None or not len(labels) else int(labels.max()) + 1
    if divide:
        chosen = split_indices(len(images), request.split)
        images, labels = images[chosen], None if labels is None else labels[chosen]
    return ArraySource(
        request,
        images,
        labels,
        num_classes=num_classes,
        num_channels=request.num_channels or images.shape[-1],
        resize=resize_square,
        recipe="central square, bicubic, rounded",
    )
