"""FFHQ (T. Karras et al., 2019) and CelebA-HQ (T. Karras et al., 2018) as one TFRecord file a resolution, the form in
which the authors of those data published them.

    ffhq-r08.tfrecords            FFHQ at 2^8 = 256 pixels, ffhq-r10.tfrecords at 1024
    celebahq-r08.tfrecords        CelebA-HQ; r08.tfrecords in a folder called celebahq is found, too

A record has the features ``shape`` (int64: C, H, W) and ``data`` (C H W bytes). Images are served as they are, so the
file must be that of ``image_size``. There are no labels.

# parity: both splits are the whole file, as the original trains and evaluates on the same images.
# repaired: the original cannot count the records and cannot dequantise them, so its evaluation stops with an error.

The fingerprint is of the lengths and the checksums that the file states for its records, which are compared with the
data whenever a record is first read.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from score_core.data.errors import DataError
from score_core.data.layout import Layout, find
from score_core.data.preprocess import to_channels
from score_core.data.source import Request, fingerprint
from score_core.data.tfrecord import RecordFile, bytes_feature, example_features, int64_feature

__all__ = ["CELEBAHQ_LAYOUT", "FFHQ_LAYOUT", "RecordSource", "load_celebahq", "load_ffhq"]

_PUT = "{0}-r08.tfrecords (256x256; {0}-r10.tfrecords for 1024x1024)"

FFHQ_LAYOUT = Layout(
    "Flickr-Faces-HQ as TFRecords, colour, 4 to 1024 pixels",
    _PUT.format("ffhq"),
    folders=("ffhq", ""),
    files=("ffhq-r[0-9][0-9].tfrecords",),
    image_size=256,
    counts={"train": 70_000, "test": 70_000},
)
CELEBAHQ_LAYOUT = Layout(
    "CelebA-HQ as TFRecords, colour, 4 to 1024 pixels",
    _PUT.format("celebahq"),
    folders=("celebahq", ""),
    files=("celebahq-r[0-9][0-9].tfrecords", "r[0-9][0-9].tfrecords"),
    image_size=256,
    counts={"train": 30_000, "test": 30_000},
)


@lru_cache(maxsize=4)
def _open(path: Path, size: int, modified: int) -> RecordFile:
    """The index of a file, made once a process for both splits."""
    return RecordFile(path)


class RecordSource:
    """The images of a TFRecord file. Arguments: what was asked for, and the file.

    Raises:
        DataError: damaged, or images of another size or number of channels than asked for.
    """

    num_classes = None

    def __init__(self, request: Request, path: Path) -> None:
        state = path.stat()
        self._path = path
        self._file = _open(path.resolve(), state.st_size, state.st_mtime_ns)
        size = request.image_size
        planes = self._planes(0)
        if planes.shape[1:] != (size, size):
            raise DataError(
                f"{path} has images of {planes.shape[1]}x{planes.shape[2]}, expected {size}x{size}. Cure: name the "
                f"file of that size with --config.data.path, or set --config.data.image_size={planes.shape[1]}."
            )
        channels = request.num_channels or len(planes)
        to_channels(planes[None].transpose(0, 2, 3, 1), channels)  # an impossible number is said now
        self.name = request.dataset
        self.split = request.split
        self.shape = (size, size, channels)
        self.fingerprint = fingerprint(self._file.checksums, "as stored", list(self.shape))

    def __len__(self) -> int:
        return len(self._file)

    def _planes(self, i: int) -> np.ndarray:
        """Record ``i`` as stored: uint8 [C, H, W], a view into the file."""
        where = f"record {i} of {self._path}"
        features = example_features(self._file.record(i), where)
        if "shape" not in features or "data" not in features:
            raise DataError(f"{where} has the features {', '.join(features) or 'none'}; expected shape and data.")
        shape, data = int64_feature(features["shape"], where), bytes_feature(features["data"], where)
        if len(shape) != 3 or min(shape) < 1 or shape[0] * shape[1] * shape[2] != len(data):
            raise DataError(f"{where} has shape {shape} and {len(data)} bytes; expected C, H, W and C H W bytes.")
        return np.frombuffer(data, np.uint8).reshape(shape)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, None]:
        """See :class:`score_core.data.source.Source`."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for k, i in enumerate(indices):
            planes = self._planes(int(i))
            if planes.shape[1:] != self.shape[:2]:
                raise DataError(
                    f"record {i} of {self._path} has {planes.shape[1]}x{planes.shape[2]} pixels; expected "
                    f"{self.shape[0]}x{self.shape[1]} as in the first."
                )
            images[k] = to_channels(planes.transpose(1, 2, 0), self.shape[2])
        return images, None


def _load(request: Request, layout: Layout, stems: tuple[str, ...]) -> RecordSource:
    if request.path is not None and request.path.is_file():
        return RecordSource(request, request.path)
    level = request.image_size.bit_length() - 1
    if request.image_size != 1 << level:
        raise DataError(
            f"dataset {request.dataset!r} has images of 4, 8, .. 1024 pixels, found image_size={request.image_size}. "
            "Cure: one of those sizes, or --config.data.path for a file of another."
        )
    names = [f"{stem}r{level:02d}.tfrecords" for stem in stems]
    return RecordSource(request, find(request, layout, names, names[0]))


def load_ffhq(request: Request) -> RecordSource:
    """FFHQ in the file ``path``, or in the folder ``path`` or below ``root`` under its published name."""
    return _load(request, FFHQ_LAYOUT, ("ffhq-",))


def load_celebahq(request: Request) -> RecordSource:
    """CelebA-HQ, likewise."""
    return _load(request, CELEBAHQ_LAYOUT, ("celebahq-", ""))
