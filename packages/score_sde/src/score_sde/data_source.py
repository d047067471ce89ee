"""The images a configuration means."""

from pathlib import Path
from typing import Any

import ml_collections

from score_core.data import Source, load_source

__all__ = ["source_of"]


def source_of(config: ml_collections.ConfigDict, split: str) -> Source:
    """The ``train`` or ``test`` images of ``config.data``.

    Raises:
        DataError: unknown, missing or damaged; says what to put where.
    """
    data: Any = config.data
    path = data.path
    # The official files name the tfrecords of FFHQ and CelebA-HQ under a key of their own, as their authors had them.
    records = data.get("tfrecords_path")
    if not path and records and data.dataset.lower() in ("ffhq", "celebahq") and Path(records).is_file():
        path = records
    return load_source(
        data.dataset,
        split,
        image_size=data.image_size,
        num_channels=data.num_channels,
        root=data.root or None,
        path=path or None,
        download=data.download,
        category=data.category or None,
    )
