"""Images that are stored encoded (PNG, JPEG, WebP), one by one, and decoded at every fetch."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from score_core.data.errors import DataError
from score_core.data.preprocess import to_channels
from score_core.data.source import Request

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["EncodedSource", "open_image"]


def open_image(data: bytes, name: str, place: str) -> "Image.Image":
    """The decoded image of 8 bits a channel; ``name`` and ``place`` say in an error which it is.

    Raises:
        DataError: it is damaged, no image, absurdly large, or has more than 8 bits a channel.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {name!r} of {place} cannot be decoded ({error}). Cure: replace or remove it."
        ) from error
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"image {name!r} of {place} has more than 8 bits a channel (mode {image.mode}); expected 8. "
            "Cure: convert it, as only you know the scale."
        )
    return image


class EncodedSource:
    """A source of encoded colour images.

    Arguments:
        request: gives the name, the split, the size and the number of channels (default 3) of what is served.
        count: number of images.
        read: the encoded bytes of image ``i``; called from several threads.
        name: what image ``i`` is called in an error.
        place: where the images are, for errors.
        convert: uint8 [h, w, 3] as stored and the wanted size to uint8 [size, size, 3].
        fingerprint: of content and preprocessing (see :func:`score_core.data.source.fingerprint`).
    """

    num_classes = None

    def __init__(
        self,
        request: Request,
        count: int,
        *,
        read: Callable[[int], bytes],
        name: Callable[[int], str],
        place: str,
        convert: Callable[[np.ndarray, int], np.ndarray],
        fingerprint: str,
    ) -> None:
        if not count:
            raise DataError(f"{place} holds no images of the {request.split} split; expected at least 1.")
        size, channels = request.image_size, request.num_channels or 3
        to_channels(np.zeros((1, 1, 3), np.uint8), channels)  # an impossible number is said now
        self.name = request.dataset
        self.split = request.split
        self.shape = (size, size, channels)
        self.fingerprint = fingerprint
        self._count = count
        self._read, self._name_of, self._place, self._convert = read, name, place, convert

    def __len__(self) -> int:
        return self._count

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, None]:
        """See :class:`score_core.data.source.Source`."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for k, i in enumerate(indices):
            images[k] = self._decode(int(i))
        return images, None

    def _decode(self, i: int) -> np.ndarray:
        size, _, channels = self.shape
        image = np.asarray(open_image(self._read(i), self._name_of(i), self._place).convert("RGB"))
        try:
            image = self._convert(image, size)
        except DataError as error:
            raise DataError(f"image {self._name_of(i)!r} of {self._place}: {error}") from error
        return to_channels(image, channels)
