r"""The closed forms of NCSNv2 (arXiv:2006.09011, section 3): noise levels and step size from a distance.

Technique 1. :math:`\sigma_1` is as large as the largest distance of two training images, so that chains can pass from
any image to any other.

Technique 2. Levels are geometric, :math:`\sigma_i = \sigma_{i-1} / \gamma`. Of images with :math:`D` numbers the radius
at level :math:`i` is nearly :math:`N(\sqrt{D} \sigma_i, \sigma_i^2 / 2)`, and of it the part

.. math:: C(\gamma, D) = \Phi(\sqrt{2D} (\gamma - 1) + 3 \gamma) - \Phi(\sqrt{2D} (\gamma - 1) - 3 \gamma)

lies within three standard deviations of that at level :math:`i - 1`. The text asks for :math:`C \approx 0.5`; all five
published schedules have 0.567, which is the default here.

Technique 3. The network is conditioned by :math:`s(x, \sigma) = f(x) / \sigma`, because norms of scores go with
:math:`1 / \sigma`.

Technique 4. :math:`T` Langevin steps that start from the level above end with the variance :math:`s_T^2`,

.. math::
    \frac{s_T^2}{\sigma_i^2} = r^{2T} \Big(\gamma^2 - \frac{2 \epsilon}{\sigma_L^2 (1 - r^2)}\Big)
    + \frac{2 \epsilon}{\sigma_L^2 (1 - r^2)}, \qquad r = 1 - \frac{\epsilon}{\sigma_L^2}

(proposition 3). :math:`T` is as large as one can afford, :math:`\epsilon` brings the ratio nearest to 1.
"""

import math
from dataclasses import dataclass
from typing import Any

from score_core.errors import UsageError

__all__ = [
    "PUBLISHED_OVERLAP",
    "Schedule",
    "best_epsilon",
    "count_levels",
    "overlap",
    "ratio_of_levels",
    "suggest",
    "variance_ratio",
]

PUBLISHED_OVERLAP = 0.567


@dataclass(frozen=True)
class Schedule:
    """What the techniques suggest.

    Attributes:
        dimension: D, numbers in an image.
        sigma_begin, sigma_end: largest and smallest level.
        num_classes: how many levels.
        gamma: the ratio of neighbours.
        overlap: C of that ratio.
        n_steps_each, step_lr: T and epsilon.
        variance_ratio: of these.
    """

    dimension: int
    sigma_begin: float
    sigma_end: float
    num_classes: int
    gamma: float
    overlap: float
    n_steps_each: int
    step_lr: float
    variance_ratio: float


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def overlap(gamma: float, dimension: int) -> float:
    """C of neighbouring levels with the ratio ``gamma`` (technique 2), in (0, 1)."""
    distance = math.sqrt(2 * dimension) * (gamma - 1)
    return _normal_cdf(distance + 3 * gamma) - _normal_cdf(distance - 3 * gamma)


def ratio_of_levels(dimension: int, target: float = PUBLISHED_OVERLAP) -> float:
    """The ratio gamma > 1 of neighbouring levels whose overlap is ``target``.

    Raises: UsageError if images are so small (D <= 4) or the target so strange that there is none.
    """
    from scipy.optimize import brentq

    if not 0 < target < 0.99 or dimension < 5:
        raise UsageError(
            f"no ratio of noise levels has an overlap of {target} in {dimension} dimensions: the overlap must be "
            "between 0 and 0.99 and an image have 5 numbers at least"
        )
    high = 2.0
    while overlap(high, dimension) > target:
        high *= 2
        if high > 1e9:
            raise UsageError(f"in {dimension} dimensions every ratio overlaps by more than {target}: raise the target")
    root: Any = brentq(lambda gamma: overlap(gamma, dimension) - target, 1.0, high, xtol=1e-15)
    return float(root)


def count_levels(sigma_begin: float, sigma_end: float, gamma: float) -> int:
    """How many geometric levels lead from ``sigma_begin`` to ``sigma_end`` with a ratio of about ``gamma``."""
    # rounded down, as the published counts are
    return max(2, math.floor(1 + math.log(sigma_begin / sigma_end) / math.log(gamma)))


def variance_ratio(epsilon: float, gamma: float, n_steps: int, sigma_end: float) -> float:
    """s_T^2 / sigma_i^2 after ``n_steps`` steps of size ``epsilon`` (at the smallest level) from the level above."""
    shrink = 1 - epsilon / sigma_end**2
    stationary = 2 * epsilon / (sigma_end**2 * (1 - shrink**2))
    return shrink ** (2 * n_steps) * (gamma**2 - stationary) + stationary


def best_epsilon(gamma: float, n_steps: int, sigma_end: float) -> float:
    """The step size whose variance ratio is nearest to 1 (technique 4)."""
    from scipy.optimize import minimize_scalar

    def distance(log_epsilon: float) -> float:
        return abs(variance_ratio(math.exp(log_epsilon), gamma, n_steps, sigma_end) - 1)

    limit = sigma_end**2  # from here on a step overshoots
    found = minimize_scalar(
        distance, bounds=(math.log(limit * 1e-6), math.log(limit * 0.999)), method="bounded", options={"xatol": 1e-10}
    )
    return math.exp(float(found.x))


def suggest(
    sigma_begin: float, dimension: int, *, sigma_end: float = 0.01, n_steps: int = 5, target: float = PUBLISHED_OVERLAP
) -> Schedule:
    """Techniques 2 and 4 for a largest level.

    Arguments:
        sigma_begin: from technique 1.
        dimension: numbers in an image, C H W.
        sigma_end: the smallest level, which cannot be seen in an image.
        n_steps: T, steps at a level.
        target: the overlap.
    """
    if not 0 < sigma_end < sigma_begin or n_steps < 1:
        raise UsageError(
            f"sigma from {sigma_begin} to {sigma_end}, {n_steps} steps: they must fall, with 1 step or more"
        )
    count = count_levels(sigma_begin, sigma_end, ratio_of_levels(dimension, target))
    gamma = (sigma_begin / sigma_end) ** (1 / (count - 1))
    epsilon = float(f"{best_epsilon(gamma, n_steps, sigma_end):.1e}")  # two digits, as in the paper's table 4
    return Schedule(
        dimension,
        sigma_begin,
        sigma_end,
        count,
        gamma,
        overlap(gamma, dimension),
        n_steps,
        epsilon,
        variance_ratio(epsilon, gamma, n_steps, sigma_end),
    )
