"""Training times whose density undoes the loss's weight, and the truncated laws that come with them.

Variance-preserving SDE, B(t) = t^2 (b1 - b0) / 2 + t b0, r(t) = beta(t) / (1 - exp(-B(t))) = g^2 / std^2:

density       r(max(t, te)) / Z on [0, T]
antiderivative of r        A(t) = log(exp(B(t)) - 1)
cdf           r(te) t / Z up to te, (r(te) te + A(t) - A(te)) / Z above
inverse cdf   u Z / r(te) up to te; above, with c = Z u + A(te) - r(te) te and L = log(1 + exp(c)),
              t solves B(t) = L

Two forms of it: the original's, in float32 throughout, whose constants are off by 2e-4 (t by 2e-5) and which knows
beta = 0.1 .. 20 only; and the exact one, for any betas.
"""

import math
from dataclasses import dataclass

import numpy as np

from score_core.arrays import Array, namespace
from variational_sde.sde import VariancePreserving

__all__ = [
    "DebiasedTimes",
    "VETimes",
    "get_beta",
    "truncated_exponential_density",
    "truncated_exponential_sample",
]

_OFFICIAL = (0.1, 20.0)
_f32 = np.float32


@dataclass(frozen=True)
class _Constants:
    Z: float
    r_eps: float
    antiderivative_eps: float


def _original_constants(T: float, te: float) -> _Constants:
    """In float32, as the original's: 1 - exp(-B) loses digits at te."""
    b0, b1 = _OFFICIAL
    T32, te32 = _f32(T), _f32(te)

    def integral(t: np.float32) -> np.float32:
        return _f32(_f32(0.5) * t * t * _f32(b1 - b0)) + _f32(t * _f32(b0))

    def one_minus_exp(t: np.float32) -> np.float32:
        # correctly rounded, so that no machine's float32 exponential matters
        return _f32(1) - _f32(math.exp(-float(integral(t))))

    def antiderivative(t: np.float32) -> np.float32:
        return _f32(math.log(float(one_minus_exp(t)))) + integral(t)

    r = (_f32(b0) + _f32(b1 - b0) * te32) / one_minus_exp(te32)
    A, phi = float(antiderivative(te32)), float(r * te32)
    Z = float(_f32(_f32(phi) + antiderivative(T32)) - _f32(A))
    return _Constants(Z, float(r), A)


def _exact_constants(sde: VariancePreserving) -> _Constants:
    k = sde.beta_max - sde.beta_min

    def antiderivative(t: float) -> float:
        return math.log(math.expm1(0.5 * t * t * k + t * sde.beta_min))

    te = sde.t_epsilon
    r = (sde.beta_min + k * te) / -math.expm1(-(0.5 * te * te * k + te * sde.beta_min))
    return _Constants(r * te + antiderivative(sde.T) - antiderivative(te), r, antiderivative(te))


class DebiasedTimes:
    """The time density of the variance-preserving SDE.

    Arguments:
        sde: gives betas, T and t_epsilon (0 < t_epsilon < T).
        exact: the exact law instead of the original's float32 one. Other betas than 0.1 and 20 are always exact: the
            original ignores them.
    """

    def __init__(self, sde: VariancePreserving, exact: bool = False) -> None:
        if not 0 < sde.t_epsilon < sde.T:
            raise ValueError(f"t_epsilon is {sde.t_epsilon}: it must lie between 0 and T = {sde.T}")
        self.sde = sde
        self.exact = exact or (sde.beta_min, sde.beta_max) != _OFFICIAL
        self.constants = _exact_constants(sde) if self.exact else _original_constants(sde.T, sde.t_epsilon)

    def inverse_cdf(self, u: Array) -> Array:
        """Times in [0, T] of ``u`` in [0, 1], of any shape."""
        xp = namespace(u)
        Z, r, A = self.constants.Z, self.constants.r_eps, self.constants.antiderivative_eps
        te, b0 = self.sde.t_epsilon, self.sde.beta_min
        c = Z * u + (A - r * te)
        k = self.sde.beta_max - b0
        if self.exact:
            L = xp.logaddexp(c, xp.zeros_like(c))
            above = 2 * L / (b0 + xp.sqrt(b0**2 + 2 * k * L))  # the root without cancellation; also for k = 0
        else:
            L = xp.log(1 + xp.exp(c))
            above = (-b0 + xp.sqrt(b0**2 + 2 * k * L)) / k
        return xp.where(u <= te * r / Z, u * (Z / r), above)

    def cdf(self, t: Array) -> Array:
        """Probability of a time up to ``t``, of any shape."""
        xp = namespace(t)
        Z, r, A = self.constants.Z, self.constants.r_eps, self.constants.antiderivative_eps
        te = self.sde.t_epsilon
        later = xp.where(t > te, t, xp.full_like(t, te))
        B = -2 * self.sde.log_mean_coefficient(later)
        antiderivative = xp.log(xp.expm1(B)) if self.exact else xp.log(1 - xp.exp(-B)) + B
        return xp.where(t <= te, r * t, r * te + antiderivative - A) / Z

    def density(self, t: Array) -> Array:
        """Probability density at ``t`` in [0, T], of any shape."""
        xp = namespace(t)
        later = xp.where(t > self.sde.t_epsilon, t, xp.full_like(t, self.sde.t_epsilon))
        variance = -xp.expm1(2 * self.sde.log_mean_coefficient(later))
        return self.sde.beta(later) / variance / self.constants.Z


@dataclass(frozen=True)
class VETimes:
    """The same for a variance-exploding SDE, s(t) = m r^t - m, m = sigma_min^2, r = (sigma_max / sigma_min)^2.

    The density is proportional to m r^t log r / s(t), constant below ``t_epsilon``.
    """

    sigma_min: float
    sigma_max: float
    t_epsilon: float
    T: float = 1.0

    @property
    def _r(self) -> float:
        return (self.sigma_max / self.sigma_min) ** 2

    def _s(self, t: float) -> float:
        return self.sigma_min**2 * (self._r**t - 1)

    @property
    def _slope(self) -> float:
        """The unnormalised density at and below t_epsilon."""
        te, m, r = self.t_epsilon, self.sigma_min**2, self._r
        return m * r**te * math.log(r) / self._s(te)

    @property
    def _A1(self) -> float:
        return self._slope * self.t_epsilon

    @property
    def _A(self) -> float:
        return self._A1 + math.log(self._s(self.T)) - math.log(self._s(self.t_epsilon))

    def density(self, t: Array) -> Array:
        """Probability density at ``t``."""
        xp = namespace(t)
        m, r = self.sigma_min**2, self._r
        late = xp.where(t > self.t_epsilon, t, xp.full_like(t, self.t_epsilon))
        value = m * r**late * math.log(r) / (m * (r**late - 1))
        return xp.where(t > self.t_epsilon, value, xp.full_like(t, self._slope)) / self._A

    def cdf(self, t: Array) -> Array:
        """Probability of a time up to ``t``."""
        xp = namespace(t)
        late = xp.where(t > self.t_epsilon, t, xp.full_like(t, self.t_epsilon))
        log_s = xp.log(self.sigma_min**2 * (self._r**late - 1))
        above = (self._A1 + log_s - math.log(self._s(self.t_epsilon))) / self._A
        return xp.where(t <= self.t_epsilon, self._slope * t / self._A, above)

    def inverse_cdf(self, u: Array) -> Array:
        """Times of ``u`` in [0, 1]."""
        xp = namespace(u)
        r, te = self._r, self.t_epsilon
        linear = u * (self._A / self._slope)
        above = xp.log((r**te - 1) * xp.exp(self._A * u - self._A1) + 1) / math.log(r)
        return xp.where(linear < te, linear, above)


def truncated_exponential_sample(rate: float, u: Array, T: float = 1.0) -> Array:
    """Times in [0, T] with density proportional to exp(-rate t), of ``u`` uniform in [0, 1).

    Raises:
        ValueError: a negative rate.
    """
    _check_rate(rate)
    if rate == 0:
        return u * T
    return -namespace(u).log(1 - u * (1 - math.exp(-rate * T)) + 1e-10) / rate


def truncated_exponential_density(rate: float, t: Array, T: float = 1.0) -> Array:
    """The density of :func:`truncated_exponential_sample` at ``t`` in [0, T].

    Raises:
        ValueError: a negative rate.
    """
    _check_rate(rate)
    xp = namespace(t)
    if rate == 0:
        return xp.full_like(t, 1 / T)
    return rate * xp.exp(-rate * t) / (1 - math.exp(-rate * T))


def _check_rate(rate: float) -> None:
    if rate < 0:
        raise ValueError(f"the rate of a truncated exponential is {rate}; it must be 0 or more")


def get_beta(iteration: int, anneal: int, beta_min: float = 0.0, beta_max: float = 1.0) -> float:
    """The linear ramp min((beta_max - beta_min) iteration / anneal + beta_min, beta_max)."""
    if anneal < 1:
        raise ValueError(f"anneal is {anneal}; it must be at least 1")
    return min((beta_max - beta_min) * iteration / anneal + beta_min, beta_max)
