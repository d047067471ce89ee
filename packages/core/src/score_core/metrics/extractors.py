"""Feature extractors: what turns images into the activations that the scores are computed on.

A score is only comparable with scores from the same extractor, so each carries a name and a SHA-256 of its weights
and preprocessing; both are stored with every statistics file and every result. Weights, PyTorch and TensorFlow are
loaded when an extractor that needs them is asked for.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from score_core.metrics.digits import DigitsExtractor
from score_core.metrics.inception_network import VARIANTS, InceptionExtractor
from score_core.metrics.tfgan import MODELS, TfganExtractor
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
        """SHA-256 of weights and preprocessing, hexadecimal."""
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


def _digits(weights: str | os.PathLike[str] | None, download: bool) -> Extractor:
    if weights is not None:
        raise MetricUsageError(f"the extractor 'digits' has its weights in the package; it takes no file ({weights})")
    return DigitsExtractor()


def _inception(name: str, weights: str | os.PathLike[str] | None, download: bool) -> Extractor:
    return InceptionExtractor(name, weights, download=download)


def _tfgan(name: str, weights: str | os.PathLike[str] | None, download: bool) -> Extractor:
    return TfganExtractor(name, weights)


# name -> what loads it, given a path (or None) and whether it may be fetched.
EXTRACTORS: dict[str, Callable[[str | os.PathLike[str] | None, bool], Extractor]] = {
    "digits": _digits,
    **{name: partial(_inception, name) for name in VARIANTS},
    **{name: partial(_tfgan, name) for name in MODELS},
}


def get_extractor(name: str, *, weights: str | os.PathLike[str] | None = None, download: bool = False) -> Extractor:
    """The extractor called ``name`` (any case), with its weights loaded and verified.

    Arguments:
        name: one of EXTRACTORS.
        weights: file of the Inception weights, or folder of a SavedModel; default: as the extractor's class says.
        download: fetch the Inception weights if they are not on this machine.

    Raises:
        MetricUsageError: no such extractor; its weights, or the framework that it runs in, are missing or damaged.
    """
    if name.lower() not in EXTRACTORS:
        raise MetricUsageError(f"unknown feature extractor {name!r}; known: {', '.join(sorted(EXTRACTORS))}")
    return EXTRACTORS[name.lower()](weights, download)
