"""FFHQ as NCSNv2 read it: an LMDB database with the entry ``length`` (the number of images in ASCII digits) and
entries ``{image_size}-{index, five digits}``, encoded images of that size.

The first nine tenths of a shuffled list of the indices (NumPy's legacy generator, seed 2019) are the train split, the
rest the test split, both in the shuffled order. There are no labels. Needs the ``lsun`` extra. The fingerprint is of
the number of images and the file's size.
"""

import numpy as np

from score_core.data.encoded import EncodedSource
from score_core.data.errors import DataError
from score_core.data.layout import Layout
from score_core.data.lmdb_files import open_database
from score_core.data.source import Request, fingerprint

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout(
    "Flickr-Faces-HQ as NCSNv2's LMDB database, 256x256 colour",
    "the LMDB folder FFHQ (holding data.mdb, entries such as 256-00000)",
    folders=("",),
    files=("FFHQ",),
    image_size=256,
    counts={"train": 63_000, "test": 7_000},
)

_TRAIN_FRACTION = 0.9
_SEED = 2019


def load(request: Request) -> EncodedSource:
    """The images found in the database folder ``path`` or in ``FFHQ`` below ``root``."""
    place = request.path or request.root / "FFHQ"
    if not (place / "data.mdb").is_file():
        raise LAYOUT.missing(request)
    database = open_database(place)
    text, entries = database.read(b"length"), len(database)
    if not text.isdigit() or not 0 < int(text) < entries:
        raise DataError(
            f"{place} says it has {text[:40]!r} images and has {entries} entries; expected a number and more entries. "
            "Cure: make or fetch it again."
        )
    count, size = int(text), request.image_size
    order = np.arange(count)
    np.random.RandomState(_SEED).shuffle(order)  # parity: published test losses belong to this split
    train = int(_TRAIN_FRACTION * count)
    items = order[:train] if request.split == "train" else order[train:]

    def key(i: int) -> str:
        return f"{size}-{items[i]:05d}"

    def check(image: np.ndarray, size: int) -> np.ndarray:
        if image.shape[:2] != (size, size):
            raise DataError(f"it has {image.shape[0]}x{image.shape[1]} pixels; expected {size}x{size}.")
        return image

    if len(items):
        database.read(key(0).encode())  # another image size than the database's is said now
    return EncodedSource(
        request,
        len(items),
        read=lambda i: database.read(key(i).encode()),
        name=key,
        place=str(place),
        convert=check,
        fingerprint=fingerprint(
            items, (place / "data.mdb").stat().st_size, "as stored", [size, request.num_channels or 3]
        ),
    )
