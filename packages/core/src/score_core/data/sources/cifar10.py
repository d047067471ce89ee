"""CIFAR-10 (A. Krizhevsky, 2009): 50,000 training and 10,000 test images of 32x32x3 in ten classes.

Both published forms are read, packed or unpacked, under their published names:

    cifar-10-batches-py/  or cifar-10-python.tar.gz    data_batch_1 .. 5, test_batch: pickled dicts of ``data`` (uint8
                                                       [n, 3072], the channels one after the other) and ``labels``
    cifar-10-batches-bin/ or cifar-10-binary.tar.gz    the same names with .bin: records of 1 label byte + 3072 bytes

Both hold the same images in the same order. An archive is read in memory at every start, which takes a few seconds;
unpack it to save them. Sizes other than 32 are made at every fetch by an antialiased bilinear resize.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from score_core.data.errors import DataError, MissingDataError
from score_core.data.layout import Layout
from score_core.data.preprocess import resize_bytes
from score_core.data.source import ArraySource, Request
from score_core.data.untrusted import load_plain_pickle, read_tar_members

__all__ = ["FORMS", "LAYOUT", "Form", "load"]

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Form:
    """One published form of the dataset."""

    folder: str
    archive: str
    url: str
    md5: str
    suffix: str
    parse: Callable[[bytes, str], tuple[np.ndarray, np.ndarray]]

    def files(self, split: str) -> list[str]:
        """Base names of the files of ``split``, in order."""
        stems = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
        return [f"{stem}{self.suffix}" for stem in stems]


def _parse_pickle(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    content = load_plain_pickle(data, where)
    rows = content.get(b"data") if isinstance(content, dict) else None
    labels = content.get(b"labels") if isinstance(content, dict) else None
    if not isinstance(rows, np.ndarray) or not isinstance(labels, list):
        raise DataError(f"{where} is not a CIFAR-10 batch: expected an array 'data' and a list 'labels'.")
    if not all(isinstance(label, int) for label in labels):
        raise DataError(f"{where} is not a CIFAR-10 batch: expected whole numbers as 'labels'.")
    return rows, np.array(labels, np.int64)


def _parse_binary(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if len(data) % (1 + _PIXELS):
        raise DataError(
            f"{where} is damaged: {len(data)} bytes is not a multiple of {1 + _PIXELS}. "
            "Cure: delete it and fetch it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


FORMS = (
    Form(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        suffix="",
        parse=_parse_pickle,
    ),
    Form(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        suffix=".bin",
        parse=_parse_binary,
    ),
)

LAYOUT = Layout(
    "CIFAR-10, 32x32 colour, ten classes",
    " or ".join(f"{form.archive} (or its folder {form.folder})" for form in FORMS),
    folders=("", "cifar10"),
    files=tuple(name for form in FORMS for name in (form.folder, form.archive)),
    image_size=32,
    counts={"train": 50_000, "test": 10_000},
)


def _locate(request: Request) -> Path:
    """The folder or archive to read."""
    if request.path is not None:
        if not request.path.exists():
            raise MissingDataError(request.dataset, request.path, f"{FORMS[0].archive} or its folder there")
        return request.path
    for folder in LAYOUT.folders:
        for name in LAYOUT.files:
            if (request.root / folder / name).exists():
                return request.root / folder / name
    archive = request.root / FORMS[0].archive
    if not request.download:
        put = f"{LAYOUT.put} there, or allow the download (--config.data.download=True, from {FORMS[0].url})"
        raise MissingDataError(request.dataset, request.root, put)
    # Here, as it loads Python's network modules.
    from score_core.data.download import download

    download(FORMS[0].url, archive, FORMS[0].md5)
    return archive


def _read(place: Path, split: str) -> tuple[Form, dict[str, bytes]]:
    """The first form whose files of ``split`` are all at ``place``, and their contents."""
    groups = [form.files(split) for form in FORMS]
    if place.is_dir():
        contents = {name: (place / name).read_bytes() for group in groups for name in group if (place / name).is_file()}
    else:
        contents = read_tar_members(place, groups)
    for form, group in zip(FORMS, groups, strict=True):
        if all(name in contents for name in group):
            return form, contents
    missing = min(([name for name in group if name not in contents] for group in groups), key=len)
    raise DataError(
        f"{place} is not a complete CIFAR-10: {', '.join(missing)} is missing. Cure: delete it and fetch it again."
    )


def load(request: Request) -> ArraySource:
    """CIFAR-10 found at ``path``, below ``root``, or fetched into ``root`` if ``download``; labels 0..9."""
    place = _locate(request)
    form, contents = _read(place, request.split)
    images, labels = [], []
    for name in form.files(request.split):
        rows, numbers = form.parse(contents[name], f"{name} of {place}")
        if rows.dtype != np.uint8 or rows.shape != (len(numbers), _PIXELS) or np.any((numbers < 0) | (numbers > 9)):
            raise DataError(
                f"{name} of {place} is not a CIFAR-10 batch: found data {rows.dtype} {rows.shape} with {len(numbers)} "
                f"labels; expected uint8 (n, {_PIXELS}) and n labels 0..9."
            )
        images.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(numbers)
    return ArraySource(
        request,
        np.concatenate(images),
        np.concatenate(labels),
        num_classes=10,
        num_channels=request.num_channels or 3,
        resize=resize_bytes,
        recipe="bilinear, rounded",
    )
