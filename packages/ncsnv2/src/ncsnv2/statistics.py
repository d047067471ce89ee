"""The reference of a FID: the statistics file of a configuration, or statistics of its data, made once and kept.

fast_fid.statistics                           if given
<exp>/datasets/cifar10_fid.npz                CIFAR10, with the extractor inception_ncsnv2 (TTUR's file, training set)
<exp>/datasets/celeba_test_fid_stats.npz      CELEBA, the same (test set)
<exp>/datasets/fid_<dataset>_<size>_<extractor>_<fingerprint>.npz     otherwise: computed here from the images
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ncsnv2.config import EMBEDDED
from ncsnv2.data import open_data
from score_core.data.source import Source
from score_core.metrics import Extractor, Statistics, collect_statistics, get_extractor, load_statistics
from score_core.runs.progress import Progress

__all__ = ["config_extractor", "reference_statistics"]

_logger = logging.getLogger(__name__)

INCEPTION = "inception_ncsnv2"
_ORIGINAL = {"CIFAR10": "cifar10_fid.npz", "CELEBA": "celeba_test_fid_stats.npz"}
_BATCH = 500


def config_extractor(config: argparse.Namespace) -> Extractor:
    """The feature extractor of ``fast_fid``.

    Raises: MetricUsageError if its weights are missing; says where to put them.
    """
    default = "digits" if config.data.dataset.lower() in EMBEDDED else INCEPTION
    return get_extractor(config.fast_fid.extractor or default, weights=config.fast_fid.extractor_weights)


def reference_statistics(config: argparse.Namespace, exp: Path, extractor: Extractor) -> Statistics:
    """What samples are compared with.

    Raises: MetricUsageError, DataError: neither statistics nor the data are there.
    """
    if config.fast_fid.statistics is not None:
        return load_statistics(config.fast_fid.statistics)
    dataset = config.data.dataset.upper()
    known = exp / "datasets" / _ORIGINAL.get(dataset, "")
    if dataset in _ORIGINAL and extractor.name == INCEPTION and known.is_file():
        return load_statistics(known)
    # parity: CelebA is measured against its test set, CIFAR-10 against its training set
    source = open_data(config, exp, "test" if dataset == "CELEBA" else "train")
    name = f"fid_{dataset.lower()}_{config.data.image_size}_{extractor.name}_{source.fingerprint[:8]}.npz"
    file = exp / "datasets" / name
    if file.is_file():
        return load_statistics(file)
    _logger.info("measuring %d images of %s for %s", len(source), dataset, file)
    statistics = _measure(source, extractor)
    statistics.save(file)
    return statistics


def _measure(source: Source, extractor: Extractor) -> Statistics:
    header = {"dataset": source.name, "split": source.split, "preprocessing": source.fingerprint}
    with Progress(len(source), description="reference", unit="image") as progress:

        def batches() -> Iterator[np.ndarray]:
            for first in range(0, len(source), _BATCH):
                yield source.fetch(np.arange(first, min(first + _BATCH, len(source))))[0]
                progress.update(min(_BATCH, len(source) - first))

        return collect_statistics(extractor, batches(), header=header)
