"""Scores on activations: FID, Inception score, KID, their statistics files and feature extractors.

The names below are loaded when first used, so that the help of the ``score-stats`` command does not wait for NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from score_core.metrics.collect import collect_statistics
    from score_core.metrics.evaluate import compute_metrics
    from score_core.metrics.extractors import EXTRACTORS, Extractor, get_extractor
    from score_core.metrics.frechet import (
        FrechetReference,
        frechet_distance,
        frechet_distance_from_activations,
        frechet_standard_error,
    )
    from score_core.metrics.inception import inception_score
    from score_core.metrics.kernel import kernel_distance
    from score_core.metrics.statistics import (
        Statistics,
        check_comparable,
        load_statistics,
        original_statistics_path,
    )
    from score_core.metrics.streaming import StreamingMoments, moments
    from score_core.metrics.validation import MetricError, MetricUsageError

__all__ = [
    "EXTRACTORS",
    "Extractor",
    "FrechetReference",
    "MetricError",
    "MetricUsageError",
    "Statistics",
    "StreamingMoments",
    "check_comparable",
    "collect_statistics",
    "compute_metrics",
    "frechet_distance",
    "frechet_distance_from_activations",
    "frechet_standard_error",
    "get_extractor",
    "inception_score",
    "kernel_distance",
    "load_statistics",
    "moments",
    "original_statistics_path",
]

_HOMES = {
    "collect": ("collect_statistics",),
    "evaluate": ("compute_metrics",),
    "extractors": ("EXTRACTORS", "Extractor", "get_extractor"),
    "frechet": (
        "FrechetReference",
        "frechet_distance",
        "frechet_distance_from_activations",
        "frechet_standard_error",
    ),
    "inception": ("inception_score",),
    "kernel": ("kernel_distance",),
    "statistics": ("Statistics", "check_comparable", "load_statistics", "original_statistics_path"),
    "streaming": ("StreamingMoments", "moments"),
    "validation": ("MetricError", "MetricUsageError"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # not asked again
    return value
