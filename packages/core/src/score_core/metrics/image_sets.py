"""Images to measure, wherever they lie: a dataset, a folder, archives of samples. Every one is served exactly once.

    dataset name            one split of it, as training sees it, without flips and without dequantisation
    folder of images        all .png, .jpg, .jpeg and .webp below it, in natural order
    folder of samples_*.npz what an evaluation wrote, in the order of the rounds
    .npz files              uint8 [n, H, W, C] under ``samples``, ``images`` or ``arr_0``

With ``split``, a folder or one archive is taken for a dataset and divided as :mod:`score_core.data` divides it. Images
of folders and archives must have one size, or are cut to the central square and resized to ``image_size``.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from score_core.data.encoded import open_image
from score_core.data.image_files import IMAGE_SUFFIXES, natural_key
from score_core.data.preprocess import resize_square
from score_core.data.source import Source
from score_core.data.sources import SOURCES, load_source
from score_core.metrics.validation import MetricError, MetricUsageError, check_images

__all__ = ["ImageSet", "open_images"]

DEFAULT_SIZE = 32
KEYS = ("samples", "images", "arr_0")


@dataclass
class ImageSet:
    """``name``, ``split`` and ``image_size`` are for the header; ``count`` is None where it is not known beforehand."""

    name: str
    split: str | None
    image_size: int | None
    count: int | None
    source: Source | None = None
    files: Sequence[Path] = ()

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, uint8 [n, H, W, C], n <= ``size``."""
        if self.source is not None:
            for start in range(0, len(self.source), size):
                yield self.source.fetch(np.arange(start, min(start + size, len(self.source))))[0]
            return
        archives = self.files[0].suffix == ".npz"
        shape = None
        for where, images in self._arrays() if archives else self._decoded(size):
            if self.image_size is not None and images.shape[1:3] != (self.image_size, self.image_size):
                images = resize_square(images, self.image_size)
            if shape not in (None, images.shape[1:]):
                raise MetricUsageError(
                    f"{where}: images of {list(images.shape[1:])} beside others of {list(shape or ())}; "
                    "give one size with --image-size"
                )
            shape = images.shape[1:]
            self._digest.update(str(shape).encode() + np.ascontiguousarray(images).data)
            for start in range(0, len(images), size):
                yield images[start : start + size]

    def header(self) -> dict[str, Any]:
        """What the statistics' header says of them; complete when all batches were served."""
        fingerprint = self._digest.hexdigest() if self.source is None else self.source.fingerprint
        size = self.image_size if self.source is None else self.source.shape[0]
        return {"dataset": self.name, "split": self.split, "image_size": size, "preprocessing": fingerprint}

    def _arrays(self) -> Iterator[tuple[Path, np.ndarray]]:
        for file in self.files:
            yield file, _read_archive(file)

    def _decoded(self, size: int) -> Iterator[tuple[Path, np.ndarray]]:
        """Runs of images of one shape, each with its first file."""
        first, run = self.files[0], []
        for file in self.files:
            image = _decode(file)
            if self.image_size is not None:
                image = resize_square(image, self.image_size)
            if run and (image.shape != run[0].shape or len(run) == size):
                yield first, np.stack(run)
                first, run = file, []
            run.append(image)
        yield first, np.stack(run)


def open_images(
    targets: Sequence[str],
    *,
    split: str | None = None,
    image_size: int | None = None,
    root: str | None = None,
    path: str | None = None,
    category: str | None = None,
    download: bool = False,
) -> ImageSet:
    """The images that ``targets`` name: one dataset, one folder, or one or several .npz files.

    Arguments:
        split: ``train`` (a dataset's default) or ``test``; None: everything in a folder or archives.
        image_size: a dataset's default: 32.
        root, path, category, download: of :func:`score_core.data.load_source`, for a dataset.

    Raises:
        MetricUsageError, DataError: nothing there, or no images; says what was expected.
    """
    places = [Path(target) for target in targets]
    more: dict[str, Any] = {"root": root, "category": category, "download": download}
    if len(targets) == 1 and targets[0].lower() in SOURCES:
        source = load_source(
            targets[0], split or "train", image_size=image_size or DEFAULT_SIZE, path=path or None, **more
        )
        return ImageSet(source.name, source.split, None, len(source), source)
    if len(places) == 1 and split is not None and places[0].exists():
        kind = "folder" if places[0].is_dir() else "npz"
        source = load_source(kind, split, image_size=image_size or DEFAULT_SIZE, path=places[0], **more)
        return ImageSet(places[0].name, split, None, len(source), source)
    if len(places) == 1 and places[0].is_dir():
        return _open_folder(places[0], image_size)
    for place in places:
        if place.suffix != ".npz" or not place.is_file():
            raise MetricUsageError(
                f"{str(place)!r} is no dataset, folder of images or .npz file of images; datasets: "
                f"{', '.join(sorted(SOURCES))}"
            )
    return ImageSet(places[0].stem, None, image_size, None, files=places)


def _open_folder(folder: Path, image_size: int | None) -> ImageSet:
    found = [file for file in folder.rglob("*") if not any(part.startswith(".") for part in file.parts[-1:])]
    found.sort(key=lambda file: natural_key(file.relative_to(folder).as_posix()))
    images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    if images:
        return ImageSet(folder.name, None, image_size, len(images), files=images)
    archives = [file for file in found if file.name.startswith("samples_") and file.suffix == ".npz"]
    if archives:
        return ImageSet(folder.name, None, image_size, None, files=archives)
    raise MetricUsageError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no samples_*.npz")


def _decode(file: Path) -> np.ndarray:
    """RGB, upright."""
    from PIL import ImageOps

    try:
        data = file.read_bytes()
    except OSError as error:
        raise MetricUsageError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    image = open_image(data, file.name, str(file.parent))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _read_archive(file: Path) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            key = next((key for key in KEYS if key in arrays.files), None)
            images = None if key is None else arrays[key]
            names = arrays.files
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise MetricUsageError(f"{file}: not a readable .npz file ({error}); make or copy it again") from error
    if images is None:
        raise MetricUsageError(f"{file} holds {names}, expected images under one of {', '.join(KEYS)}")
    try:
        return check_images(f"{file}, {key}", images[..., None] if images.ndim == 3 else images)
    except MetricError as error:
        raise MetricUsageError(str(error)) from error
