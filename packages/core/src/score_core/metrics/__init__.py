"""Scores on activations: FID, Inception score, KID, their statistics files and feature extractors."""

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
from score_core.metrics.statistics import Statistics, check_comparable, load_statistics
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
]
