"""Statistics of a dataset's split, measured once and kept in a folder: ``fid_<name>_<extractor>_<fingerprint>.npz``."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from score_core.data.source import Source
from score_core.metrics.collect import collect_statistics
from score_core.metrics.extractors import Extractor
from score_core.metrics.statistics import Statistics, load_statistics
from score_core.runs.progress import Progress

__all__ = ["dataset_statistics"]

_logger = logging.getLogger(__name__)
_BATCH = 500


def dataset_statistics(source: Source, extractor: Extractor, folder: Path) -> Statistics:
    """What samples are compared with: every image of ``source`` once, without flips.

    Arguments:
        source: the images.
        extractor: from :func:`score_core.metrics.get_extractor`.
        folder: where the file is looked for and, if it is not there, written.

    Raises: MetricError, DataError.
    """
    name = f"fid_{source.name.lower()}_{source.shape[0]}_{extractor.name}_{source.fingerprint[:8]}.npz"
    file = folder / name
    if file.is_file():
        return load_statistics(file)
    _logger.info("measuring %d images of %s for %s", len(source), source.name, file)
    header = {"dataset": source.name, "split": source.split, "preprocessing": source.fingerprint}
    with Progress(len(source), description="reference", unit="image") as progress:

        def batches() -> Iterator[np.ndarray]:
            for first in range(0, len(source), _BATCH):
                yield source.fetch(np.arange(first, min(first + _BATCH, len(source))))[0]
                progress.update(min(_BATCH, len(source) - first))

        statistics = collect_statistics(extractor, batches(), header=header)
    statistics.save(file)
    return statistics
