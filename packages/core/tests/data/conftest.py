"""Small sources and files in the real formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from score_core.data.preprocess import resize_square
from score_core.data.source import ArraySource, Request


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """A request with defaults that a test does not care about."""

    def make(dataset: str = "memory", split: str = "train", image_size: int = 4, **others) -> Request:
        return Request(dataset, split, image_size, **{"num_channels": None, "root": Path("nowhere"), **others})

    return make


@pytest.fixture
def make_source(make_request) -> Callable[..., ArraySource]:
    """``n`` different 4x4x3 images, none equal to its mirror image; label = index mod 7."""

    def make(n: int, labels: bool = True) -> ArraySource:
        images = np.random.default_rng(n).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        return ArraySource(
            make_request(),
            images,
            np.arange(n) % 7 if labels else None,
            num_classes=7 if labels else None,
            num_channels=3,
            resize=resize_square,
            recipe="",
        )

    return make


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3], smooth and without symmetry."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    planes = [127 + 60 * np.sin(5 * x + a) + 60 * np.cos(4 * y + b) for a, b in phase]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture
def image() -> Callable[..., np.ndarray]:
    """:func:`smooth_image`."""
    return smooth_image
