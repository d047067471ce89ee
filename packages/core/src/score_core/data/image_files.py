"""Images that lie in files, decoded at every fetch: what image folders and zip archives have in common.

Names decide everything, so that the same images give the same source in both forms:

- files ending in .png, .jpg, .jpeg or .webp count; hidden ones and those of ``__MACOSX`` do not;
- a single folder that holds everything is looked through;
- folders ``train`` and ``test`` (or ``val``, ``validation``), when there is a ``train``, are the split; otherwise
  :func:`score_core.data.source.split_indices` divides the naturally sorted list (``img2`` before ``img10``);
- the first folder below that is the class, numbered in natural order over both splits; images outside any folder
  mean that there are no labels.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from score_core.data.encoded import open_image
from score_core.data.errors import DataError
from score_core.data.source import Request, fingerprint, split_indices

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_SUFFIXES", "ImageFilesSource", "natural_key", "square"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_TEST_FOLDERS = ("test", "val", "validation")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key of a path in which runs of digits compare as numbers and folders before their contents."""
    key = []
    for part in name.split("/"):
        key += [(1, int(run), run) if run.isdecimal() else (2, 0, run) for run in re.findall(r"[0-9]+|[^0-9]+", part)]
        key.append((0, 0, ""))
    return key


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES


def _common_folder(names: Sequence[str]) -> str:
    """``a/b/`` if all names lie in folder a/b; folders that name a split are not looked through."""
    prefix = ""
    while True:
        heads = {name[len(prefix) :].partition("/")[0] for name in names}
        head = heads.pop()
        nested = all("/" in name[len(prefix) :] for name in names)
        if heads or not nested or head in ("train", *_TEST_FOLDERS):
            return prefix
        prefix += f"{head}/"


def _choose(names: list[str], split: str, place: str) -> tuple[list[str], list[str] | None, list[str] | None]:
    """The files of ``split``, their class names and all class names; ``names`` are sorted and share no folder."""
    prefix = _common_folder(names)
    inner = [name[len(prefix) :] for name in names]
    heads = {name.partition("/")[0] for name in inner if "/" in name}
    if "train" in heads:
        folder = "train" if split == "train" else next((head for head in _TEST_FOLDERS if head in heads), None)
        if folder is None:
            raise DataError(
                f"{place} has a folder 'train' but none for the test split; expected one of "
                f"{', '.join(_TEST_FOLDERS)} beside it. Cure: add it, or rename 'train' to have it divided."
            )
        splits = [i for i, name in enumerate(inner) if name.partition("/")[0] in ("train", *_TEST_FOLDERS)]
        chosen = [i for i in splits if inner[i].startswith(f"{folder}/")]
        inner = [name.partition("/")[2] for name in inner]
    else:
        splits = list(range(len(names)))
        chosen = split_indices(len(names), split).tolist()
    files = [names[i] for i in chosen]
    if not all("/" in inner[i] for i in splits):
        return files, None, None
    classes = sorted({inner[i].partition("/")[0] for i in splits}, key=natural_key)
    return files, [inner[i].partition("/")[0] for i in chosen], classes


class ImageFilesSource:
    """A source whose images are encoded files, read by name.

    Each image is turned upright (EXIF), converted to ``num_channels`` (1 grey, 3 RGB, 4 RGBA; default: as the first
    file of all splits, grey or RGB), cut to its central square and resized with an antialiased bicubic filter unless
    it has ``image_size`` already. Transparency is dropped unless 4 channels are asked for.

    Arguments:
        request: what was asked for.
        stamps: names of all files, with ``/`` between parts, and for each a number that changes with its content.
        read: a file's bytes by name.
        place: where the files are, for errors.

    Raises:
        DataError: no images, no test split, an impossible number of channels; at :meth:`fetch` a damaged file.
    """

    def __init__(self, request: Request, stamps: dict[str, int], read: Callable[[str], bytes], place: str) -> None:
        names = sorted((name for name in stamps if _is_image(name)), key=natural_key)
        if not names:
            raise DataError(f"{place} holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
        self._files, labels, classes = _choose(names, request.split, place)
        if not self._files:
            raise DataError(f"{place} holds {len(names)} image(s), none of them in the {request.split} split.")
        self._read, self._place = read, place
        self._labels = None
        if labels is not None and classes is not None:
            numbers = {name: number for number, name in enumerate(classes)}
            self._labels = np.array([numbers[label] for label in labels], np.int64)
        channels = request.num_channels or self._own_channels(names[0])
        if channels not in (1, 3, 4):
            raise DataError(f"image files can be served with 1, 3 or 4 channels, found num_channels={channels}.")
        self.name = request.dataset
        self.split = request.split
        self.shape = (request.image_size, request.image_size, channels)
        self.num_classes = None if classes is None else len(classes)
        self.fingerprint = fingerprint(
            self._files, [stamps[name] for name in self._files], labels, "central square, bicubic", list(self.shape)
        )

    def __len__(self) -> int:
        return len(self._files)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`score_core.data.source.Source`."""
        images = np.stack([self._decode(self._files[i]) for i in indices])
        return images, None if self._labels is None else self._labels[indices]

    def _own_channels(self, name: str) -> int:
        return 1 if self._open(name).mode in ("1", "L", "LA") else 3

    def _open(self, name: str):
        return open_image(self._read(name), name, self._place)

    def _decode(self, name: str) -> np.ndarray:
        return square(self._open(name), self.shape[0], self.shape[2])


def square(image: "Image.Image", size: int, channels: int) -> np.ndarray:
    """The central square of an image, turned upright, uint8 ``[size, size, channels]``; 1, 3 or 4 channels."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image).convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        # Not resize's own box: its edges would mix with pixels that are not in the square.
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, channels)
