"""The variance-preserving SDE of the paper and its plug-in reverse (arXiv:2106.02808, sections 2 and 3, Appendix C).

Inference SDE     dY = f ds + g dB,  f = -beta(s) y / 2,  g = sqrt(beta(s)),  s from 0 (data) to T
Generative SDE    dX = mu dt + sigma dB,  t from 0 (noise) to T (data),  s = T - t
                  mu = (1 - lambda/2) g a - f,  sigma = sqrt(1 - lambda) g
Drift             a(y, s) = g(s) score(y, s): what the network gives, unlike the other packages' networks

lambda = 0 is the reverse SDE, lambda = 1 the equivalent ODE. For the exact ``a`` the law at each time is the same
for all lambda <= 1.
Here y is ``[B, ...]``, s ``[B]``; arrays of NumPy, JAX or PyTorch.
"""

import math

from score_core.arrays import Array, batch_mul
from score_core.sdes import VPSDE

__all__ = ["VariancePreserving", "check_lambda", "reverse_diffusion", "reverse_drift"]


class VariancePreserving(VPSDE):
    """beta(s) = beta_min + (beta_max - beta_min) s on [0, T]; T cuts the time axis, the betas do not change with it.

    Arguments:
        beta_min, beta_max: beta at s = 0 and s = 1.
        T: end time.
        t_epsilon: below it the debiased time density is constant (:mod:`variational_sde.times`).
    """

    predicts = "score"

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, T: float = 1.0, t_epsilon: float = 0.001) -> None:
        if not (T > 0 and math.isfinite(T)):
            raise ValueError(f"T is {T}: the end time must be positive (--T0)")
        super().__init__(beta_min, beta_max)
        self.T = T
        self.t_epsilon = t_epsilon

    def diffusion(self, s: Array) -> Array:
        """g(s), ``[B]``."""
        return self.beta(s) ** 0.5

    def std(self, s: Array) -> Array:
        """The standard deviation of Y_s given Y_0, ``[B]``."""
        return self.marginal_prob(s[:, None], s)[1]


def check_lambda(lmbd: float) -> float:
    """``lmbd`` itself.

    Raises:
        ValueError: it is above 1 (sigma would be imaginary) or not finite.
    """
    if not (math.isfinite(lmbd) and lmbd <= 1):
        raise ValueError(f"lambda is {lmbd}: it must be a number <= 1 (0: reverse SDE, 1: ODE)")
    return lmbd


def reverse_drift(sde: VariancePreserving, a: Array, y: Array, s: Array, lmbd: float = 0.0) -> Array:
    """mu at generative time T - s, ``[B, ...]``.

    Arguments:
        a: the network's output a(y, s), of the shape of ``y``.
        y: state. s: inference time ``[B]``.
        lmbd: lambda <= 1.
    """
    return (1.0 - 0.5 * lmbd) * batch_mul(sde.diffusion(s), a) - sde.drift(y, s)


def reverse_diffusion(sde: VariancePreserving, s: Array, lmbd: float = 0.0) -> Array:
    """sigma at generative time T - s, ``[B]``."""
    return (1.0 - lmbd) ** 0.5 * sde.diffusion(s)
