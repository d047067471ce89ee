"""Which pixels inpainting knows.

right, left, top, bottom    that half is generated (``right`` is the original's task)
center                      the central square of half the side is generated
a file                      a picture (white where pixels are generated) of the images' size
"""

from pathlib import Path

import numpy as np

from score_core.errors import UsageError

__all__ = ["MASKS", "known_pixels"]

MASKS = ("right", "left", "top", "bottom", "center")
_WHITE = 128


def known_pixels(name: str, size: int) -> np.ndarray:
    """The mask ``name`` for images of ``size`` x ``size`` pixels: bool ``[size, size]``, True where they are known.

    Raises: UsageError for an unknown name, a file that is no picture of that size, or a mask that leaves nothing to do.
    """
    half, quarter = size // 2, size // 4
    wanted = np.zeros((size, size), bool)
    match name:
        case "right":
            wanted[:, half:] = True
        case "left":
            wanted[:, :half] = True
        case "top":
            wanted[:half] = True
        case "bottom":
            wanted[half:] = True
        case "center":
            wanted[quarter : size - quarter, quarter : size - quarter] = True
        case _:
            wanted = _read(name, size)
    if wanted.all() or not wanted.any():
        raise UsageError(f"sampling.mask {name!r} marks {'every' if wanted.all() else 'no'} pixel as to be generated.")
    return ~wanted


def _read(name: str, size: int) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    if not Path(name).is_file():
        raise UsageError(f"sampling.mask is {name!r}: expected one of {', '.join(MASKS)}, or the path of a picture.")
    try:
        with Image.open(name) as picture:
            mask = np.asarray(picture.convert("L"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(f"sampling.mask {name!r} is no picture that can be read ({error}).") from error
    if mask.shape != (size, size):
        raise UsageError(f"sampling.mask {name!r} has {mask.shape[1]}x{mask.shape[0]} pixels, expected {size}x{size}.")
    return mask >= _WHITE
