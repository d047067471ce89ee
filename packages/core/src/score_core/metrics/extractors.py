"""Feature extractors: what turns images into the activations that the scores are computed on.

A score is only comparable with scores from the same extractor, so each carries a name and the SHA-256 of its weights;
both are stored with every statistics file and every result.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from score_core.metrics.digits import DigitsExtractor
from score_core.metrics.validation import MetricUsageError

__all__ = ["EXTRACTORS", "Extractor", "get_extractor"]


class Extractor(Protocol):
    """Images in, features and class logits out."""

    @property
    def name(self) -> str:
        """Short name, as in :data:`EXTRACTORS`."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights, hexadecimal."""
        ...

    @property
    def feature_dim(self) -> int:
        """D, the number of features."""
        ...

    @property
    def num_logits(self) -> int | None:
        """K, the number of classes; None for a network without a classifier (no Inception score then)."""
        ...

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(pool_3 float32 [n, D], logits float32 [n, K] or None) of images uint8 [n, H, W, C]."""
        ...


# name -> what loads it. Loading happens when the extractor is asked for, never at import.
EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    "digits": DigitsExtractor,
}


def get_extractor(name: str) -> Extractor:
    """The extractor called ``name`` (any case), with its weights loaded and verified.

    Raises:
        MetricUsageError: no such extractor.
        MetricError: its weights are missing or damaged.
    """
    if name.lower() not in EXTRACTORS:
        raise MetricUsageError(f"unknown feature extractor {name!r}; known: {', '.join(sorted(EXTRACTORS))}")
    return EXTRACTORS[name.lower()]()
