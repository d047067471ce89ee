"""MNIST (Y. LeCun et al., 1998) and Fashion-MNIST (H. Xiao et al., 2017): 60,000 training and 10,000 test images of
28x28x1 in ten classes.

Both have files of the same names, so each has a folder of its own below the root: ``mnist`` or ``MNIST/raw``,
``fashion_mnist`` or ``FashionMNIST/raw``. Plain or with ``.gz``:

    train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte

An idx file is two zero bytes, 8 (uint8), the number of dimensions, the dimensions (big-endian uint32), the bytes. Sizes
other than 28 are made at every fetch by an antialiased bilinear resize.
"""

import gzip
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from score_core.data.errors import DataError
from score_core.data.layout import Layout
from score_core.data.preprocess import resize_bytes
from score_core.data.source import ArraySource, Request

__all__ = ["FASHION_LAYOUT", "FASHION_MD5", "MNIST_LAYOUT", "MNIST_MD5", "load_fashion_mnist", "load_mnist"]

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""MD5 of the published .gz files; a downloaded file must have it."""

FASHION_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The same of Fashion-MNIST."""

_PUT = (
    "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz "
    "of {} (unpacked or not; --config.data.download=True fetches them)"
)
_COUNTS = {"train": 60_000, "test": 10_000}
_PATTERNS = ("train-images-idx3-ubyte*", "t10k-images-idx3-ubyte*")

MNIST_LAYOUT = Layout(
    "MNIST, 28x28 grey, ten classes",
    _PUT.format("MNIST"),
    folders=("mnist", "MNIST/raw"),
    files=_PATTERNS,
    image_size=28,
    counts=_COUNTS,
)
FASHION_LAYOUT = Layout(
    "Fashion-MNIST, 28x28 grey, ten classes",
    _PUT.format("Fashion-MNIST"),
    folders=("fashion_mnist", "FashionMNIST/raw"),
    files=_PATTERNS,
    image_size=28,
    counts=_COUNTS,
)

_MOST = 1_000_000
"""More items than this are taken for a damaged or hostile header."""


def _read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """The uint8 [n, *item] of an idx file, not reading a byte more than its header announces."""
    where, cure = f"{path}", "Cure: delete it and fetch it again."
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            length = 4 + 4 * (1 + len(item))
            header = file.read(length)
            if len(header) < length or header[:4] != bytes((0, 0, 8, 1 + len(item))):
                raise DataError(
                    f"{where} is not an idx file of uint8 with {1 + len(item)} dimension(s): "
                    f"it begins with {header[:4].hex() or 'nothing'}. {cure}"
                )
            count, *found = struct.unpack(f">{1 + len(item)}I", header[4:])
            if tuple(found) != item or not 0 < count <= _MOST:
                raise DataError(f"{where} announces {(count, *found)}; expected n of {item or 'labels'}. {cure}")
            size = count * int(np.prod(item))
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where} cannot be read ({error}). {cure}") from error
    if len(data) != size:
        raise DataError(
            f"{where} is damaged: found {'more' if len(data) > size else len(data)} bytes, expected {size}. {cure}"
        )
    return np.frombuffer(data, np.uint8).reshape(count, *item)


def _find(request: Request, layout: Layout, url: str, md5: Mapping[str, str]) -> list[Path]:
    """The files of the images and of the labels."""
    names = _FILES[request.split]
    places = [request.root / folder for folder in layout.folders] if request.path is None else [request.path]
    for place in places:
        found = [next((f for f in (place / name, place / f"{name}.gz") if f.is_file()), None) for name in names]
        files = [file for file in found if file is not None]
        if len(files) == len(names):
            return files
        if files:
            absent = next(name for name, file in zip(names, found, strict=True) if file is None)
            raise DataError(f"{place} has {files[0].name} but not {absent}[.gz]. Cure: put it there, too.")
    if not request.download:
        raise layout.missing(request)
    # Here, as it loads Python's network modules.
    from score_core.data.download import download

    targets = [places[0] / f"{name}.gz" for name in names]
    for name, target in zip(names, targets, strict=True):
        download(f"{url}{name}.gz", target, md5[name])
    return targets


def _load(request: Request, layout: Layout, url: str, md5: Mapping[str, str]) -> ArraySource:
    image_file, label_file = _find(request, layout, url, md5)
    images, labels = _read_idx(image_file, (28, 28)), _read_idx(label_file, ())
    if len(images) != len(labels) or labels.max() > 9:
        raise DataError(
            f"{label_file} has {len(labels)} labels up to {labels.max()} for {len(images)} images; expected one an "
            "image, 0..9. Cure: fetch both files again."
        )
    return ArraySource(
        request,
        images[..., None],
        labels,
        num_classes=10,
        num_channels=request.num_channels or 1,
        resize=resize_bytes,
        recipe="bilinear, rounded",
    )


def load_mnist(request: Request) -> ArraySource:
    """MNIST; labels 0..9."""
    return _load(request, MNIST_LAYOUT, _MNIST_URL, MNIST_MD5)


def load_fashion_mnist(request: Request) -> ArraySource:
    """Fashion-MNIST; labels 0..9 (T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot)."""
    return _load(request, FASHION_LAYOUT, _FASHION_URL, FASHION_MD5)
