"""Statistics of a stream of images: every image goes through the extractor once, activations are kept or folded in."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from score_core.metrics.extractors import Extractor
from score_core.metrics.statistics import Statistics
from score_core.metrics.streaming import StreamingMoments
from score_core.metrics.validation import MetricError

__all__ = ["collect_statistics"]


def collect_statistics(
    extractor: Extractor,
    batches: Iterable[np.ndarray],
    *,
    header: Mapping[str, Any],
    keep_activations: bool = True,
) -> Statistics:
    """Statistics of all images in ``batches``.

    Arguments:
        extractor: from :func:`score_core.metrics.get_extractor`.
        batches: images uint8 [n, H, W, C], n may vary; every image exactly once, without padding, flips or
            dequantisation noise.
        header: dataset, split, preprocessing and anything else worth keeping; the extractor's name and SHA-256 are
            filled in.
        keep_activations: False keeps moments only (memory D^2 whatever the number of images; no IS, no KID).

    Raises:
        MetricError: fewer than two images, or what the extractor refuses.
    """
    header = dict(header) | {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
    state = StreamingMoments(extractor.feature_dim)
    features: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    for images in batches:
        pool_3, scores = extractor(images)
        state.update(pool_3)
        if keep_activations:
            features.append(pool_3)
            if scores is not None:
                logits.append(scores)
    if state.count < 2:
        raise MetricError(f"statistics: {state.count} image(s) in the stream, at least 2 are needed")
    return Statistics(
        state.mean,
        state.cov,
        state.count,
        header,
        np.concatenate(features) if features else None,
        np.concatenate(logits) if logits else None,
    )
