r"""Technique 1 without a network: annealed Langevin dynamics on the exact score of the data.

Images :math:`x_1, ..., x_n` with noise of deviation :math:`\sigma` have the density :math:`\frac1n \sum_i N(x_i,
\sigma^2 I)`, whose score at :math:`x` is :math:`(\sum_i w_i x_i - x) / \sigma^2`, with the weights :math:`w_i \propto
\exp(-|x - x_i|^2 / 2 \sigma^2)`. A chain that starts at a small :math:`\sigma_1` stays near the image that it meets
first; how far apart samples are shows whether :math:`\sigma_1` is large enough (NCSNv2, section 3.1).
"""

from collections.abc import Callable

import numpy as np

from score_core.noise_scales import annealed_step_sizes

__all__ = ["mean_pairwise_distance", "mixture_score", "sample_mixture", "score_norms"]


def mixture_score(data: np.ndarray) -> Callable[[np.ndarray, float], np.ndarray]:
    """``score(x, sigma)`` of the data with noise.

    Arguments:
        data: ``[n, D]`` float64, images in [0, 1].
    """
    squares = (data**2).sum(axis=1)

    def score(x: np.ndarray, sigma: float) -> np.ndarray:
        """``[B, D]`` to ``[B, D]``."""
        # |x|^2 is the same for all images and leaves the weights as they are
        exponent = (x @ data.T - 0.5 * squares) / sigma**2
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        mean = weight @ data / weight.sum(axis=1, keepdims=True)
        return (mean - x) / sigma**2

    return score


def sample_mixture(
    data: np.ndarray, sigmas: np.ndarray, step_lr: float, n_steps: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Annealed Langevin samples ``[count, D]`` from uniform noise, denoised at the end; arguments as of a training."""
    score = mixture_score(data)
    x = rng.random((count, data.shape[1]))
    for sigma, size in zip(sigmas, annealed_step_sizes(sigmas, step_lr), strict=True):
        for _ in range(n_steps):
            x = x + size * score(x, float(sigma)) + np.sqrt(2 * size) * rng.standard_normal(x.shape)
    return x + sigmas[-1] ** 2 * score(x, float(sigmas[-1]))


def mean_pairwise_distance(images: np.ndarray) -> float:
    """The mean Euclidean distance of two different rows of ``[n, D]``."""
    from scipy.spatial.distance import pdist

    return float(pdist(images).mean())


def score_norms(data: np.ndarray, sigmas: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The mean norm of the score at each level, at images with noise of that level (technique 3): ``[L]``."""
    score = mixture_score(data)
    norms = []
    for sigma in sigmas:
        x = data[rng.integers(0, len(data), count)]
        x = x + sigma * rng.standard_normal(x.shape)
        norms.append(np.linalg.norm(score(x, float(sigma)), axis=1).mean())
    return np.array(norms)
