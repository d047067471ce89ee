"""LSUN (F. Yu et al., 2015): photographs of one category, as LMDB databases ``{category}_train_lmdb`` and
``{category}_val_lmdb`` whose values are encoded images (WebP or JPEG), in the order of the keys.

    128 pixels:      antialiased bilinear resize until the shorter side has 128 pixels, central crop
    other sizes:     central square, antialiased bicubic resize on 0..255, truncated to whole numbers

Deviation: at 128 pixels the original keeps the fractions of a grey level, here they are rounded. # repaired: it stops
there with a TypeError. There are no labels. Needs the ``lsun`` extra. The fingerprint is of the keys, the number of
entries and the file's size: hashing 40 GB would take longer than an epoch.
"""

from collections.abc import Callable

import numpy as np

from score_core.data.encoded import EncodedSource
from score_core.data.errors import DataError
from score_core.data.layout import Layout, find
from score_core.data.lmdb_files import open_database
from score_core.data.preprocess import central_crop, crop_resize, resize_small, round_to_bytes
from score_core.data.source import Request, fingerprint

__all__ = ["CATEGORIES", "LAYOUT", "load"]

CATEGORIES = (
    "bedroom",
    "bridge",
    "church_outdoor",
    "classroom",
    "conference_room",
    "dining_room",
    "kitchen",
    "living_room",
    "restaurant",
    "tower",
)

LAYOUT = Layout(
    "LSUN photographs of one category (data.category), colour",
    "the LMDB folders {category}_train_lmdb and {category}_val_lmdb, unpacked",
    folders=("lsun", ""),
    files=("*_train_lmdb", "*_val_lmdb"),
    image_size=256,
    counts={"test": 300},
)

_SMALL_FIRST = 128
"""The size at which the original takes another operation."""


def _convert(image: np.ndarray, size: int) -> np.ndarray:
    if size == _SMALL_FIRST:
        return round_to_bytes(central_crop(resize_small(image, size), size))
    return crop_resize(image, size)


def load(
    request: Request, convert: Callable[[np.ndarray, int], np.ndarray] | None = None, recipe: str = ""
) -> EncodedSource:
    """The images of ``category`` found in the folder ``path`` that holds both databases, or below ``root``.

    ``convert`` and the words ``recipe`` for it replace this program's resize (see :class:`EncodedSource`).
    """
    category = request.category
    if category not in CATEGORIES:
        raise DataError(
            f"dataset 'lsun' needs a category, found {category!r}; expected one of {', '.join(CATEGORIES)}. "
            "Cure: --config.data.category=church_outdoor (in commands of score-data: --category)."
        )
    name = f"{category}_{'train' if request.split == 'train' else 'val'}_lmdb"
    put = f"the LMDB folder {name}, unpacked,"
    place = find(request, LAYOUT, [name], put)
    if not place.is_dir():
        raise LAYOUT.missing(request, put)
    database = open_database(place)
    keys = database.keys
    if convert is None:
        small = request.image_size == _SMALL_FIRST
        convert, recipe = _convert, "bilinear, central crop, rounded" if small else "square, bicubic, truncated"
    return EncodedSource(
        request,
        len(keys),
        read=lambda i: database.read(keys[i].tobytes()),
        name=lambda i: keys[i].tobytes().decode("ascii", "backslashreplace"),
        place=str(place),
        convert=convert,
        fingerprint=fingerprint(
            name,
            keys.view(np.uint8),
            len(database),
            (place / "data.mdb").stat().st_size,
            recipe,
            [request.image_size, request.num_channels or 3],
        ),
    )
