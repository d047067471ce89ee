"""Looking at a dataset as a whole: which images, what numbers, all of them in one array."""

import os
import tempfile
import time
from dataclasses import dataclass

import numpy as np

from score_core.data.counter_rng import Stream, permutation
from score_core.data.prefetch import Prefetcher
from score_core.data.source import Source

__all__ = ["Summary", "draw", "gather", "summarize"]

_BATCH = 256
_MEMORY = 2 << 30
"""Bytes of images that may lie in memory; more go to a temporary file."""


def draw(source: Source, most: int, seed: int) -> np.ndarray:
    """Indices (int64, ascending) of ``most`` images of the source drawn with ``seed``; of all if there are no more."""
    n = len(source)
    return np.arange(n) if n <= most else np.sort(permutation(seed, Stream.SHUFFLE, 0, n)[:most])


def _batches(source: Source, indices: np.ndarray) -> Prefetcher[tuple[np.ndarray, np.ndarray | None]]:
    return Prefetcher(
        lambda k: source.fetch(indices[k * _BATCH : (k + 1) * _BATCH]),
        stop=-(-len(indices) // _BATCH),
        workers=os.cpu_count() or 1,
    )


@dataclass(frozen=True)
class Summary:
    """Numbers of some images of a source."""

    mean: list[float]
    """Of every channel, of values in [0, 1]."""
    std: list[float]
    labels: list[int] | None
    """Images of every class, or None without labels."""
    seconds: float
    """What fetching the images took, decoding included."""


def summarize(source: Source, indices: np.ndarray) -> Summary:
    """Mean and standard deviation (exact, from grey-level counts), label counts and time of the images ``indices``."""
    from tqdm import tqdm

    channels = source.shape[2]
    grey = np.zeros((channels, 256), np.int64)
    counts = None if source.num_classes is None else np.zeros(source.num_classes, np.int64)
    begin = time.perf_counter()
    with _batches(source, indices) as batches, tqdm(total=len(indices), desc="images", disable=None) as bar:
        for images, labels in batches:
            for channel in range(channels):
                grey[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
            if counts is not None and labels is not None:
                counts += np.bincount(labels, minlength=len(counts))
            bar.update(len(images))
    seconds = time.perf_counter() - begin
    value = np.arange(256) / 255
    part = grey / grey.sum(axis=1, keepdims=True)
    mean = part @ value
    return Summary(
        mean=mean.tolist(),
        std=np.sqrt(np.maximum(part @ value**2 - mean**2, 0)).tolist(),
        labels=None if counts is None else counts.tolist(),
        seconds=seconds,
    )


def gather(source: Source, indices: np.ndarray) -> np.ndarray:
    """The images ``indices``: uint8 [n, H, W, C], in a temporary file if they would fill the memory."""
    from tqdm import tqdm

    shape = (len(indices), *source.shape)
    if int(np.prod(shape, dtype=np.int64)) <= _MEMORY:
        images = np.empty(shape, np.uint8)
    else:
        with tempfile.TemporaryFile() as file:  # the map keeps the nameless file until it is dropped itself
            images = np.memmap(file, np.uint8, "w+", shape=shape)
    done = 0
    with _batches(source, indices) as batches, tqdm(total=len(indices), desc="images", disable=None) as bar:
        for part, _ in batches:
            images[done : done + len(part)] = part
            done += len(part)
            bar.update(len(part))
    return images
