"""The images and masks that a request names."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from score_core.controllable import require_binary
from score_core.data import Source
from score_core.data.encoded import open_image
from score_core.data.image_files import IMAGE_SUFFIXES, natural_key, square
from score_core.errors import UsageError

__all__ = ["read_images", "read_mask"]

_NUMBERS = re.compile(r"(?P<split>train|test):(?P<ranges>\d+(-\d+)?(,\d+(-\d+)?)*)")
_REGIONS = ("left", "right", "top", "bottom", "center")


def read_images(what: str, source: Callable[[str], Source], shape: tuple[int, int, int]) -> np.ndarray:
    """The images, uint8 ``[n, H, W, C]``.

    Arguments:
        what: a file, a folder of files, or images of the data set: ``test:4`` or ``train:0-2,7`` (ends included).
            Images from files are cut to their central square and resized.
        source: the data set's images by split.
        shape: (H, W, C).

    Raises:
        UsageError: there are none, or no such numbers.
        DataError: a file is damaged.
    """
    if match := _NUMBERS.fullmatch(what):
        images = source(match["split"])
        ends = [[int(end) for end in part.split("-")] for part in match["ranges"].split(",")]
        if not all(end[0] <= end[-1] < len(images) for end in ends):
            raise UsageError(
                f"--images={what}: the {match['split']} split of {images.name!r} has the images 0 to {len(images) - 1}"
            )
        numbers = [number for end in ends for number in range(end[0], end[-1] + 1)]
        return images.fetch(np.asarray(numbers))[0]
    path = Path(what)
    if path.is_dir():
        files = sorted(
            (f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: natural_key(f.name)
        )
    else:
        files = [path] if path.is_file() else []
    if not files:
        raise UsageError(
            f"--images={what}: neither a file, nor a folder of {', '.join(IMAGE_SUFFIXES)}, nor images of the data set "
            "such as test:0-7"
        )
    return np.stack([square(open_image(f.read_bytes(), f.name, str(f.parent)), shape[0], shape[2]) for f in files])


def read_mask(what: str, count: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """The mask, float32, 1 where a pixel is known: ``[count, H, W, 1]`` or ``[count, H, W, C]``.

    Arguments:
        what: a region's name, ``random:P``, or a file (see :data:`score_sde.generate.options.USAGE`).
        count: number of images; a mask of a file is the same for all.
        shape: (H, W, C) of an image.
        seed: of ``random``.

    Raises:
        UsageError: it is none of these, of another size, or holds other values.
    """
    height, width, _ = shape
    mask = np.ones((count, height, width, 1), np.float32)
    if what in _REGIONS:
        middle, half = height // 4, height // 2
        where = {
            "left": np.s_[:, :, : width // 2],
            "right": np.s_[:, :, width // 2 :],
            "top": np.s_[:, :half],
            "bottom": np.s_[:, half:],
            "center": np.s_[:, middle : height - middle, width // 4 : width - width // 4],
        }
        mask[where[what]] = 0
        return mask
    if what.startswith("random:"):
        try:
            probability = float(what.removeprefix("random:"))
        except ValueError:
            probability = -1.0
        if not 0 <= probability <= 1:
            raise UsageError(f"--mask={what}: give the probability of hiding a pixel, such as random:0.9")
        return (np.random.default_rng(seed).random(mask.shape) >= probability).astype(np.float32)
    return np.broadcast_to(_mask_of_file(what, shape), (count, height, width, shape[2] if what.endswith("npy") else 1))


def _mask_of_file(what: str, shape: tuple[int, int, int]) -> np.ndarray:
    """float32 ``[H, W, 1]`` or ``[H, W, C]``."""
    path = Path(what)
    if not path.is_file():
        raise UsageError(f"--mask={what}: neither a file nor one of {', '.join(_REGIONS)}, random:P")
    if path.suffix == ".npy":
        try:
            mask = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"--mask={what} cannot be read ({error}): save it with numpy.save") from error
        mask = mask[..., None] if mask.ndim == 2 else mask
    else:
        mask = np.asarray(open_image(path.read_bytes(), path.name, str(path.parent)).convert("L"))[..., None]
        mask = np.where(mask == 255, 1, mask)
    if mask.ndim != 3 or mask.shape[:2] != shape[:2] or mask.shape[2] not in (1, shape[2]):
        raise UsageError(
            f"--mask={what} has shape {mask.shape}; the images are {shape[0]} by {shape[1]} pixels with {shape[2]} "
            "channel(s): give one entry a pixel, or one a pixel and channel"
        )
    require_binary(mask)
    return mask.astype(np.float32)
