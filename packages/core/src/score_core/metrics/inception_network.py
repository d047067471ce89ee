"""The Inception extractors: one network, its weights from a file, and the ways in which papers fed it.

    inception           bytes scaled as for TF-GAN; logits without bias            score_sde, score_flow
    inception_bias      the same, logits with bias
    inception_fidelity  the original graph's own scaling (torch-fidelity's); logits without bias
    inception_ncsnv2    pytorch-fid's scaling and resize; no logits                ncsnv2

Scaling and resize are in :mod:`score_core.torch.inception`. The paper's TF-GAN module is said to hold the same graph;
which logits it returns could not be compared. The default is the score's original definition, without bias; the choice
moves the Inception score only. From 256 pixels up score_sde took another network: :mod:`score_core.metrics.tfgan`.
"""

import hashlib
import importlib
import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_core.metrics.inception_weights import read_weights
from score_core.metrics.validation import MetricUsageError, check_images

__all__ = ["VARIANTS", "InceptionExtractor", "Variant"]

_logger = logging.getLogger(__name__)

OTHER_NETWORK_SIZE = 256


@dataclass(frozen=True)
class Variant:
    """``scaling``: of :func:`score_core.torch.inception.to_input`; ``logits``: ``unbiased``, ``biased`` or None."""

    scaling: str
    logits: str | None


VARIANTS = {
    "inception": Variant("tfgan", "unbiased"),
    "inception_bias": Variant("tfgan", "biased"),
    "inception_fidelity": Variant("torch_fidelity", "unbiased"),
    "inception_ncsnv2": Variant("pytorch_fid", None),
}


class InceptionExtractor:
    """Images uint8 [n, H, W, C], C = 1 or 3 -> (pool_3 float32 [n, 2048], logits float32 [n, 1008] or None).

    Runs in PyTorch, on a GPU if there is one. ``sha256`` is of the weights' values and the variant.

    Arguments:
        name: one of VARIANTS.
        weights, download: see :func:`score_core.metrics.inception_weights.read_weights`.

    Raises:
        MetricUsageError: PyTorch or the weights are missing, or the file is not what it should be.
    """

    def __init__(self, name: str, weights: str | os.PathLike[str] | None = None, *, download: bool = False) -> None:
        self.name = name
        variant = VARIANTS[name]
        torch_side = _torch_side(name)
        state, digest = torch_side.read_state(*read_weights(weights, download=download))
        self._features = torch_side.InceptionFeatures(state, variant.scaling, variant.logits)
        self.sha256 = hashlib.sha256(f"{digest} {variant.scaling} {variant.logits}".encode()).hexdigest()
        self.feature_dim: int = self._features.feature_dim
        self.num_logits: int | None = self._features.num_logits
        self._size_seen = False

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and logits of images uint8 [n, H, W, C].

        Raises:
            MetricError: another dtype, number of dimensions or channels.
        """
        images = check_images(f"{self.name} extractor", images, channels=(1, 3))
        if min(images.shape[1:3]) >= OTHER_NETWORK_SIZE and not self._size_seen and self.name != "inception_ncsnv2":
            self._size_seen = True
            _logger.warning(
                "%s: from %d pixels up score_sde's published scores use the extractor tfgan_v3",
                self.name,
                OTHER_NETWORK_SIZE,
            )
        return self._features(images)


def _torch_side(name: str) -> Any:
    try:
        return importlib.import_module("score_core.torch.inception")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MetricUsageError(
            f"the extractor {name!r} runs in PyTorch, which is not installed: install score-core[torch] "
            "(uv sync --all-packages), or take the extractor 'digits', which needs nothing"
        ) from error
