"""Embedded: 1,797 handwritten digits of 8x8 pixels and 17 grey levels, the test part of the UCI "Optical Recognition of
Handwritten Digits" set, as scikit-learn carries it (E. Alpaydin and C. Kaynak, 1998, CC BY 4.0).

Level ``v`` of 0..16 becomes ``255 v / 16``; sizes above 8 are made by bicubic interpolation and rounding. Split: a
tenth (180 images) is the test split, chosen by ``score_core.data.source.SPLIT_SEED``.
"""

import gzip

import numpy as np

from score_core.data.layout import Layout
from score_core.data.preprocess import resize, round_to_bytes
from score_core.data.source import ArraySource, Request, split_indices
from score_core.data.sources.embedded import check_size, embedded_file

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout(
    "1,797 handwritten digits, 8x8 grey, enlarged to any size",
    "nothing: it comes with scikit-learn",
    image_size=16,
    embedded=True,
)


def load(request: Request) -> ArraySource:
    """Digits at ``image_size`` >= 8, 1 channel (default) or 3 equal ones; labels 0..9."""
    check_size(request, smallest=8, largest=None)
    with gzip.open(embedded_file("data/digits.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    table = table[split_indices(len(table), request.split)]
    return ArraySource(
        request,
        round_to_bytes(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)),
        table[:, 64],
        num_classes=10,
        num_channels=request.num_channels or 1,
        resize=lambda images, size: round_to_bytes(resize(images, size, size, "bicubic")),
        recipe="bicubic, rounded",
    )
