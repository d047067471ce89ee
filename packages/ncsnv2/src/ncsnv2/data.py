"""The images of a configuration: what the original's folders hold below ``<exp>/datasets``, or embedded data."""

import argparse
from pathlib import Path

from score_core.data import Pipeline
from score_core.data.source import Source
from score_core.data.torchvision_sources import load_torchvision_source

__all__ = ["open_data", "pipeline"]


def open_data(config: argparse.Namespace, exp: Path, split: str) -> Source:
    """One split (``train`` or ``test``) of ``config.data``.

    Raises: DataError, MissingDataError.
    """
    data = config.data
    return load_torchvision_source(
        data.dataset,
        split,
        image_size=data.image_size,
        num_channels=data.channels,
        datasets=exp / "datasets",
        path=data.path,
        category=data.category,
        download=data.download,
    )


def pipeline(config: argparse.Namespace, source: Source, batch_size: int, seed: int) -> Pipeline:
    """Shuffled batches; those of the training split with the flips of ``data.random_flip``."""
    # parity: the original compares with `is False`: whatever else stands there flips
    flip = source.split == "train" and config.data.random_flip is not False
    return Pipeline(source, batch_size, seed=seed, random_flip=flip, drop_remainder=False)
