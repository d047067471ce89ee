"""Street View House Numbers, cropped digits (Y. Netzer et al., 2011): 73,257 training and 26,032 test images of
32x32x3 in ten classes.

``train_32x32.mat`` and ``test_32x32.mat`` are Matlab files with ``X`` (uint8 [32, 32, 3, n]) and ``y`` ([n, 1]: 1..9,
and 10 for the digit 0, which becomes 0 here as in the originals). Sizes other than 32 are made at every fetch by an
antialiased bilinear resize.
"""

import struct
import zlib
from pathlib import Path

import numpy as np

from score_core.data.errors import DataError
from score_core.data.layout import Layout, find
from score_core.data.preprocess import resize_bytes
from score_core.data.source import ArraySource, Request

__all__ = ["LAYOUT", "MD5", "URL", "load"]

URL = "http://ufldl.stanford.edu/housenumbers/"

MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""MD5 of the published files; a downloaded file must have it."""

LAYOUT = Layout(
    "Street View House Numbers, 32x32 colour, ten classes",
    f"train_32x32.mat and test_32x32.mat (from {URL}; --config.data.download=True fetches them)",
    folders=("svhn", ""),
    files=tuple(MD5),
    image_size=32,
    counts={"train": 73_257, "test": 26_032},
)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``X`` and ``y`` of a Matlab file."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        # Opened here, as scipy leaves a damaged file open.
        with path.open("rb") as file:
            content = loadmat(file, variable_names=["X", "y"])
    except (
        MatReadError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,  # Matlab's newer container
        OSError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    ) as error:
        raise DataError(f"{path} cannot be read ({error}). Cure: delete it and fetch it again.") from error
    images, labels = content.get("X"), content.get("y")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[:-1] != (32, 32, 3):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else "nothing"
        raise DataError(f"X of {path} is {found}; expected uint8 (32, 32, 3, n). Cure: fetch the file again.")
    count = images.shape[-1]
    if not isinstance(labels, np.ndarray) or labels.size != count or not np.isin(labels, range(1, 11)).all():
        raise DataError(f"y of {path} does not hold {count} labels 1..10. Cure: fetch the file again.")
    return images.transpose(3, 0, 1, 2), labels.reshape(-1).astype(np.int64)


def load(request: Request) -> ArraySource:
    """SVHN found at ``path``, below ``root``, or fetched into ``root`` if ``download``; labels 0..9."""
    name = f"{request.split}_32x32.mat"
    if (
        request.download
        and request.path is None
        and not any((request.root / f / name).exists() for f in LAYOUT.folders)
    ):
        # Here, as it loads Python's network modules.
        from score_core.data.download import download

        download(f"{URL}{name}", request.root / LAYOUT.folders[0] / name, MD5[name])
    images, labels = _read(find(request, LAYOUT, [name]))
    return ArraySource(
        request,
        np.ascontiguousarray(images),
        labels % 10,
        num_classes=10,
        num_channels=request.num_channels or 3,
        resize=resize_bytes,
        recipe="bilinear, rounded",
    )
