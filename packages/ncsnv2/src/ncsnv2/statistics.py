"""The reference of a FID: the statistics file of a configuration, or statistics of its data, made once and kept.

fast_fid.statistics                           if given
<exp>/datasets/cifar10_fid.npz                CIFAR10, with the extractor inception_ncsnv2 (TTUR's file, training set)
<exp>/datasets/celeba_test_fid_stats.npz      CELEBA, the same (test set)
<exp>/datasets/fid_<dataset>_<size>_<extractor>_<fingerprint>.npz     otherwise: computed here from the images
"""

import argparse
from pathlib import Path

from ncsnv2.config import EMBEDDED
from ncsnv2.data import open_data
from score_core.metrics import Extractor, Statistics, get_extractor, load_statistics
from score_core.metrics.dataset_statistics import dataset_statistics

__all__ = ["config_extractor", "reference_statistics"]

INCEPTION = "inception_ncsnv2"
_ORIGINAL = {"CIFAR10": "cifar10_fid.npz", "CELEBA": "celeba_test_fid_stats.npz"}


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
    return dataset_statistics(source, extractor, exp / "datasets")
