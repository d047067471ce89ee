"""Embedded: square crops of the two photographs in scikit-learn, for runs that need photograph-like colour images.

- ``china.jpg``: Some rights reserved by danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035/
- ``flower.jpg``: https://www.flickr.com/photos/vultilion/6056698931/ (credited to danielbuechele in the README there)

Both CC BY 2.0, https://creativecommons.org/licenses/by/2.0/; retrieved by Robert Layton on 21st August 2011; see
``datasets/images/README.txt`` of scikit-learn. Changes made here: cropped and resized.

A photograph has 640x427 pixels. Columns 0..383 are for training, 384..639 for testing, so that no pixel is in both. For
an image size S < 128 both parts are shrunk (antialiased bicubic) by S/128: a crop then shows 128x128 pixels of the
photograph, enough to recognise a roof or a petal. Larger ones are cut from the photograph as it is. Crops lie on a grid
with a stride of ``min(max(S // 16, 1), 4)`` pixels in both directions, in the order photograph, row, column; neighbours
overlap. At 32x32: 2,508 crops for training, 1,292 for testing. The label is the photograph: 0 china, 1 flower.
"""

import numpy as np

from score_core.data.layout import Layout
from score_core.data.preprocess import resize, round_to_bytes, to_channels
from score_core.data.source import Request, fingerprint
from score_core.data.sources.embedded import check_size, embedded_file

__all__ = ["LAYOUT", "PhotosSource", "load"]

LAYOUT = Layout(
    "crops of two photographs, colour, 8 to 256 pixels",
    "nothing: it comes with scikit-learn",
    image_size=32,
    embedded=True,
)

_TEST_COLUMN = 384
_CROP = 128
_LARGEST = 256


def _region(name: str, split: str, size: int) -> np.ndarray:
    """The part of photograph ``name`` that belongs to ``split``, shrunk: uint8 [h, w, 3]."""
    from PIL import Image

    with Image.open(embedded_file(f"images/{name}.jpg")) as image:
        photo = np.asarray(image.convert("RGB"))
    part = photo[:, :_TEST_COLUMN] if split == "train" else photo[:, _TEST_COLUMN:]
    shrink = min(size / _CROP, 1.0)
    height, width = (round(side * shrink) for side in part.shape[:2])
    return round_to_bytes(resize(part, height, width, "bicubic"))


class PhotosSource:
    """Crops of the photographs, cut out at every fetch. Arguments: what was asked for."""

    num_classes = 2

    def __init__(self, request: Request) -> None:
        size = request.image_size
        regions = np.stack([_region(name, request.split, size) for name in ("china", "flower")])
        regions = np.ascontiguousarray(to_channels(regions, request.num_channels or 3))
        self.name = request.dataset
        self.split = request.split
        self.shape = (size, size, regions.shape[-1])
        self.stride = min(max(size // 16, 1), 4)
        self.fingerprint = fingerprint(regions, list(self.shape), self.stride)
        # [photograph, row, column, H, W, C], a view: no crop is stored.
        windows = np.lib.stride_tricks.sliding_window_view(regions, self.shape, axis=(1, 2, 3))
        self._crops = windows[:, :: self.stride, :: self.stride, 0]

    def __len__(self) -> int:
        photos, rows, columns = self._crops.shape[:3]
        return photos * rows * columns

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`score_core.data.source.Source`."""
        photo, row, column = np.unravel_index(indices, self._crops.shape[:3])
        return self._crops[photo, row, column], photo.astype(np.int64)


def load(request: Request) -> PhotosSource:
    """Crops of ``image_size`` from 8 to 256, 3 channels (default) or 1."""
    check_size(request, smallest=8, largest=_LARGEST)
    return PhotosSource(request)
