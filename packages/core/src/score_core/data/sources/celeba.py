"""CelebA (Z. Liu et al., 2015), the aligned and cropped faces of 178x218 pixels.

    img_align_celeba/ or img_align_celeba.zip     the images; also below Img/
    list_eval_partition.txt                       a line "000001.jpg 0" an image; also below Eval/
                                                  0: train, 1: validation, 2: test (162,770 + 19,867 + 19,962 images)

# parity: the split that this program calls ``test`` is partition 1, validation, on which the original evaluates.

An image is cut to its central 140x140 pixels, then shrunk by an antialiased bilinear resize until its shorter side has
``image_size`` pixels. # repaired: the original's shrinking stops with a TypeError. Deviation: the original keeps the
fractions of a grey level that the resize gives, here they are rounded. There are no labels.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from score_core.data.encoded import EncodedSource
from score_core.data.errors import DataError
from score_core.data.layout import Layout, find
from score_core.data.preprocess import central_crop, resize_small, round_to_bytes
from score_core.data.source import Request, fingerprint
from score_core.data.untrusted import named_files

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout(
    "CelebA faces, colour, cut to 140x140 and shrunk",
    "img_align_celeba.zip (or its folder img_align_celeba) and list_eval_partition.txt",
    folders=("celeba", "CelebA", ""),
    files=("img_align_celeba", "img_align_celeba.zip", "Img/img_align_celeba", "Img/img_align_celeba.zip"),
    image_size=64,
    counts={"train": 162_770, "test": 19_867},
)

_CROP = 140
_PARTITION = {"train": 0, "test": 1, "partition2": 2}
"""``partition2``, the published test split, is that of NCSN and NCSNv2 (:mod:`score_core.data.torchvision_sources`)."""


def _partition(file: Path, split: str) -> list[str]:
    """The images of ``split``, in the file's order."""
    names = []
    try:
        lines = file.read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}). Cure: fetch it again.") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != 2 or words[1] not in ("0", "1", "2") or PurePosixPath(words[0]).name != words[0]:
            raise DataError(
                f"line {number} of {file} is {line[:80]!r}; expected an image's name and 0, 1 or 2. "
                "Cure: fetch it again."
            )
        if int(words[1]) == _PARTITION[split]:
            names.append(words[0])
    return names


def _convert(image: np.ndarray, size: int) -> np.ndarray:
    return round_to_bytes(resize_small(central_crop(image, _CROP), size))


def load(request: Request) -> EncodedSource:
    """CelebA found at ``path`` (the folder that holds both) or below ``root``."""
    place = find(request, LAYOUT, LAYOUT.files)
    holders = [place.parent.parent, place.parent] if place.parent.name == "Img" else [place.parent]
    lists = [
        holder / name for holder in holders for name in ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
    ]
    listing = next((file for file in lists if file.is_file()), None)
    if listing is None:
        raise LAYOUT.missing(request, f"list_eval_partition.txt beside {place.name} in {holders[0]}, or into Eval/")
    names = _partition(listing, request.split)
    sizes, read = named_files(place)
    absent = [name for name in names if name not in sizes]
    if absent:
        raise DataError(
            f"{place} lacks {len(absent)} of the {len(names)} images that {listing} has in the {request.split} split, "
            f"{absent[0]} for one. Cure: unpack or fetch it again."
        )
    return EncodedSource(
        request,
        len(names),
        read=lambda i: read(names[i]),
        name=lambda i: names[i],
        place=str(place),
        convert=_convert,
        fingerprint=fingerprint(
            names,
            [sizes[name] for name in names],
            f"central crop {_CROP}, bilinear, rounded",
            [request.image_size, request.num_channels or 3],
        ),
    )
