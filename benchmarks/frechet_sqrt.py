"""Time and agreement of the Frechet distance by symmetric eigenvalues against scipy's general matrix square root.

    uv run python benchmarks/frechet_sqrt.py [--dim 2048] [--samples 10000]

The usual implementation takes ``scipy.linalg.sqrtm`` of the product of two covariances, a matrix that is not symmetric.
Here the covariances are those of random activations whose spectrum falls by a factor of a thousand. One line for
regular covariances, and one for singular ones (fewer samples than features), where sqrtm loses digits.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import sqrtm

from score_core.metrics import frechet_distance, moments

Moments = tuple[np.ndarray, np.ndarray]


def activations(dim: int, samples: int, seed: int) -> np.ndarray:
    """Correlated Gaussian activations [samples, dim] with a mean that depends on the seed."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0]
    generator = np.random.default_rng(seed)
    spread = np.geomspace(1, 1e-3, dim) ** 0.5 * generator.uniform(0.9, 1.1, dim)
    return (generator.standard_normal((samples, dim)) * spread) @ rotation.T + 0.01 * seed


def by_sqrtm(one: Moments, two: Moments) -> float:
    """The distance through the square root of the product of the covariances."""
    (mean_1, cov_1), (mean_2, cov_2) = one, two
    root = np.real(sqrtm(cov_1 @ cov_2))
    return float(np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1 + cov_2 - 2 * root))


def timed(function: Callable[[], float], repeats: int) -> tuple[float, float]:
    """(value, best seconds of ``repeats``)."""
    value, best = 0.0, float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        best = min(best, time.perf_counter() - start)
    return value, best


def compare(name: str, dim: int, samples: int, repeats: int) -> None:
    """Print one line."""
    one, two = (moments(activations(dim, samples, seed)) for seed in (1, 2))
    ours, ours_seconds = timed(lambda: frechet_distance(*one, *two), repeats)
    theirs, theirs_seconds = timed(lambda: by_sqrtm(one, two), repeats)
    print(
        f"{name}: D {dim}, n {samples}: eigenvalues {ours:.10f} in {ours_seconds:.2f} s, "
        f"sqrtm {theirs:.10f} in {theirs_seconds:.2f} s, {theirs_seconds / ours_seconds:.1f} times faster, "
        f"relative difference {abs(ours - theirs) / abs(theirs):.1e}"
    )


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=2048, help="number of features (2048: Inception's pool_3)")
    parser.add_argument("--samples", type=int, default=10_000, help="samples of the well-conditioned comparison")
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many runs is reported")
    options = parser.parse_args()
    compare("regular ", options.dim, options.samples, options.repeats)
    compare("singular", options.dim, options.dim // 2, options.repeats)


if __name__ == "__main__":
    main()
