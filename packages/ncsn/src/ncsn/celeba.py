"""CelebA with its annotations, as a random-access collection of (image, target); training needs no annotations.

A folder holds ``img_align_celeba/`` (JPEG, 178x218) and five text files: the partition and the identities are lines of
a name and a number; the others begin with a line of their count and a line of their columns.

    target      shape   meaning
    attr        [40]    attributes, 0 or 1
    identity    []      who it is
    bbox        [4]     x, y, width, height in the uncropped image
    landmarks   [10]    x, y of eyes, nose, corners of the mouth
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from score_core.data.encoded import open_image
from score_core.data.errors import DataError

__all__ = ["FILES", "CelebA"]

FILES = {
    "attr": ("list_attr_celeba.txt", "75e246fa4810816ffd6ee81facbd244c"),
    "identity": ("identity_CelebA.txt", "32bd1bd63d3c78cd57e08160ec5ed1e2"),
    "bbox": ("list_bbox_celeba.txt", "00566efa6fedff7a56946cd1c10f1c16"),
    "landmarks": ("list_landmarks_align_celeba.txt", "cc24ecafdb5b50baae59b03474781f8c"),
    "partition": ("list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668"),
}
"""What each file is called, and its MD5 as published."""
_SPLITS = {"train": 0, "valid": 1, "test": 2}
_HEADERLESS = ("identity", "partition")
_IMAGES = "img_align_celeba"


class CelebA:
    """One split, as ``(image, target)`` by number.

    Arguments:
        root: the folder that holds everything, or whose sub-folder ``celeba`` does.
        split: train, valid or test, in upper or lower case.
        target_type: attr, identity, bbox, landmarks, or a list of these, for which the target is a tuple.
        transform: applied to the image (RGB, of Pillow). target_transform: applied to the target.
        verify: compare the text files with the published checksums.

    Raises: ValueError for an unknown split or target; DataError if a file is missing or is not the published one.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        target_type: str | Sequence[str] = "attr",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        *,
        verify: bool = True,
    ) -> None:
        root = Path(root)
        self.root = root / "celeba" if (root / "celeba").is_dir() else root
        self.transform, self.target_transform = transform, target_transform
        self.single = isinstance(target_type, str)
        self.target_type = [target_type] if isinstance(target_type, str) else list(target_type)
        if unknown := [name for name in self.target_type if name not in FILES or name == "partition"]:
            raise ValueError(f"unknown target_type {unknown[0]!r}; known: attr, identity, bbox, landmarks")
        if split.lower() not in _SPLITS:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(_SPLITS)}")
        if not (self.root / _IMAGES).is_dir():
            raise DataError(f"there is no folder {self.root / _IMAGES}. Cure: unpack img_align_celeba.zip there.")
        tables = {kind: self._read(kind, verify) for kind in FILES}
        names, parts = tables["partition"]
        chosen = np.flatnonzero(parts[:, 0] == _SPLITS[split.lower()])
        self.filename = [names[i] for i in chosen]
        self.attr = (tables["attr"][1][chosen] + 1) // 2
        self.identity = tables["identity"][1][chosen, 0]
        self.bbox = tables["bbox"][1][chosen]
        self.landmarks_align = tables["landmarks"][1][chosen]

    def __len__(self) -> int:
        return len(self.filename)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        name = self.filename[index]
        image = open_image((self.root / _IMAGES / name).read_bytes(), name, str(self.root)).convert("RGB")
        targets = tuple(self._target(kind, index) for kind in self.target_type)
        target = targets[0] if self.single else targets
        return (
            image if self.transform is None else self.transform(image),
            target if self.target_transform is None else self.target_transform(target),
        )

    def _target(self, kind: str, index: int) -> np.ndarray:
        tables = {"attr": self.attr, "identity": self.identity, "bbox": self.bbox, "landmarks": self.landmarks_align}
        return np.asarray(tables[kind][index])

    def _read(self, kind: str, verify: bool) -> tuple[list[str], np.ndarray]:
        """Names of the images and the numbers of a text file: int64 ``[n, columns]``."""
        name, md5 = FILES[kind]
        try:
            data = (self.root / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.root / name} cannot be read ({error.strerror}). Cure: put it there.") from error
        if verify and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise DataError(
                f"{self.root / name} is not the published file (its MD5 is not {md5}). Cure: fetch it again."
            )
        lines = data.decode("ascii", errors="replace").splitlines()[0 if kind in _HEADERLESS else 2 :]
        rows = [line.split() for line in lines if line.strip()]
        try:
            return [row[0] for row in rows], np.asarray([row[1:] for row in rows], dtype=np.int64)
        except ValueError as error:
            raise DataError(
                f"{self.root / name} is no table of whole numbers ({error}). Cure: fetch it again."
            ) from error
