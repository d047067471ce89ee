"""Denoising score matching and the evidence lower bound, one value a sample (arXiv:2106.02808, section 4).

With y = mean(x, t) + std(t) e,  e ~ N(0, I), and a = a(y, t):

DSM     |a std / g + e|^2 / 2
ELBO    E[log p_T(Y_T)] - integral over [0, T] of E[|a|^2 / 2 + div(g a - f)] ds  <=  log p(x)
        estimated with one uniform time, q = 1/T its density, and a probe v with E[v v^T] = I:
        P + D + N,  P = log p_T(y_T),  D = -v^T (d(g a - f)/dy) v / q,  N = -|a|^2 / (2 q)

The functions receive times and noise and never draw; values are nats. x, y, e, v are ``[B, ...]``, t is ``[B]``.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from score_core.arrays import Array, batch_mul, namespace, per_sample, sum_dims
from score_core.likelihood import bits_per_dim, hutchinson
from variational_sde.sde import VariancePreserving

__all__ = [
    "DriftFn",
    "DsmNoise",
    "ElboNoise",
    "ElboTerms",
    "bound_in_bits",
    "dsm_loss",
    "elbo_terms",
    "log_normal",
    "log_standard_normal",
    "perturb",
]

DriftFn = Callable[[Array, Array], Array]
"""``a(y[B, ...], s[B]) -> [B, ...]``."""


class DsmNoise(NamedTuple):
    """The random part of a loss: times ``[B]`` in [0, T] and standard normal noise of the data's shape."""

    t: Array
    e: Array


class ElboNoise(NamedTuple):
    """The random part of a bound: times ``[B]``, noise at that time, the probe, noise at time T."""

    t: Array
    e: Array
    v: Array
    e_T: Array


class ElboTerms(NamedTuple):
    """The three terms of the bound, each ``[B]``."""

    log_prior: Array
    divergence: Array
    energy: Array

    @property
    def elbo(self) -> Array:
        """Their sum, in nats."""
        return self.log_prior + self.divergence + self.energy


def perturb(sde: VariancePreserving, x: Array, t: Array, e: Array) -> Array:
    """A sample of Y_t given Y_0 = ``x``."""
    mean, std = sde.marginal_prob(x, t)
    return batch_mul(std, e) + mean


def dsm_loss(sde: VariancePreserving, a_fn: DriftFn, x: Array, noise: DsmNoise) -> Array:
    """The denoising score-matching loss, ``[B]``.

    With uniform times it is the bound's integrand weighted by std^2 / g^2; with the times of
    :mod:`variational_sde.times` its expectation is the bound's integral up to a constant and a factor.
    """
    t, e = noise
    a = a_fn(perturb(sde, x, t, e), t)
    std = sde.marginal_prob(x, t)[1]
    return 0.5 * sum_dims((batch_mul(std, a) / per_sample(sde.diffusion(t), a) + e) ** 2)


def elbo_terms(sde: VariancePreserving, x: Array, noise: ElboNoise, a: Array, vjp: Array) -> ElboTerms:
    """The bound from the network's output and one vector-Jacobian product.

    Arguments:
        x: data in the network's range.
        noise: what ``a`` and ``vjp`` were computed with.
        a: a(y, t).
        vjp: v^T d(g a - f)/dy, of the shape of ``x``.
    """
    y_T = perturb(sde, x, namespace(x).full_like(noise.t, sde.T), noise.e_T)
    q = 1.0 / sde.T
    return ElboTerms(
        log_prior=sum_dims(log_normal(y_T, 0.0, 0.0)),
        divergence=-hutchinson(noise.v, vjp) / q,
        energy=-0.5 * sum_dims(a**2) / q,
    )


def log_normal(x: Array, mean: Array | float, log_var: Array | float) -> Array:
    """The log-density of N(mean, exp(log_var)) element by element, as the original computes it."""
    variance = math.exp(log_var) if isinstance(log_var, float) else namespace(log_var).exp(log_var)
    # parity: 1e-5 in the denominator makes the density too high, by about 0.008 nats for a CIFAR-10 image in all
    return -((x - mean) ** 2) / (2 * variance + 1e-5) - 0.5 * log_var - 0.5 * math.log(2 * math.pi)


def log_standard_normal(x: Array) -> Array:
    """The log-density of N(0, 1) element by element."""
    return -(x**2) / 2 - 0.5 * math.log(2 * math.pi)


def bound_in_bits(nats: Array, dims: int) -> Array:
    """Bits/dim of 8-bit images from the log-density (or its bound) of the dequantised image in [0, 1], ``[B]``.

    Arguments:
        nats: ``[B]``, the logit transform's log-determinant included.
        dims: number of elements of an image.
    """
    return bits_per_dim(nats, 0.0, dims, 8.0)
