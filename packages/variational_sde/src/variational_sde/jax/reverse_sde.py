"""Loss and bound in JAX: the formulas of :mod:`variational_sde.objectives` on a Flax network.

``apply_fn(params, y, s)`` is the network a(y, s); arrays are ``[B, ...]``, images channels last. Noise is one stream a
sample, with the numbers of the PyTorch wing's evaluation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_core.jax.noise import PerSampleNoise, uniform_per_sample
from score_core.jax.noise import probe as per_sample_probe
from score_core.likelihood import hutchinson
from score_core.random import Role
from variational_sde.objectives import DsmNoise, ElboNoise, ElboTerms, dsm_loss, elbo_terms, perturb
from variational_sde.sde import VariancePreserving, reverse_drift
from variational_sde.times import DebiasedTimes

__all__ = ["ApplyFn", "draw_dsm_noise", "drift_and_divergence", "dsm", "elbo", "image_noise", "mean_dsm"]

ApplyFn = Callable[[Any, jax.Array, jax.Array], jax.Array]


def draw_dsm_noise(key: jax.Array, x: jax.Array, sde: VariancePreserving, times: DebiasedTimes | None) -> DsmNoise:
    """Times (of the debiased density, if ``times`` is given) and noise for a batch ``x``."""
    first, second = jax.random.split(key)
    u = jax.random.uniform(first, (x.shape[0],))
    return DsmNoise(times.inverse_cdf(u) if times else u * sde.T, jax.random.normal(second, x.shape))


def dsm(sde: VariancePreserving, apply_fn: ApplyFn, params: Any, x: jax.Array, noise: DsmNoise) -> jax.Array:
    """The denoising score-matching loss of each sample, ``[B]``."""
    return dsm_loss(sde, lambda y, t: apply_fn(params, y, t), x, noise)


def elbo(sde: VariancePreserving, apply_fn: ApplyFn, params: Any, x: jax.Array, noise: ElboNoise) -> ElboTerms:
    """The three terms of the bound of each sample; differentiable with respect to ``params``."""

    def drift(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        a = apply_fn(params, y, noise.t)
        return reverse_drift(sde, a, y, noise.t), a

    _, pull, a = jax.vjp(drift, perturb(sde, x, noise.t, noise.e), has_aux=True)
    return elbo_terms(sde, x, noise, a, pull(noise.v)[0])


def image_noise(
    key: jax.Array, indices: jax.Array, shape: tuple[int, ...], vtype: str, T: float
) -> tuple[jax.Array, ElboNoise]:
    """The dequantisation and the noise of the bound of images with these numbers, one stream an image.

    Arguments:
        key: of ``jax.random``. indices: ``[B]``. shape: of one image (H, W, C).
    """
    normal = PerSampleNoise(key, indices, shape)
    u = uniform_per_sample(key, indices, Role.DEQUANTIZATION, shape)
    t = uniform_per_sample(jax.random.fold_in(key, 1), indices, Role.DEQUANTIZATION, ())
    v = per_sample_probe(key, indices, (indices.shape[0], *shape), vtype)
    return u, ElboNoise(t * T, normal.predictor((), 0)[1], v, normal.prior()[1])


def drift_and_divergence(
    sde: VariancePreserving, apply_fn: ApplyFn, params: Any, y: jax.Array, s: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The ODE in inference time, dy/ds = f - g a / 2, and its estimated divergence ``[B]``."""
    drift, pull = jax.vjp(lambda y: -reverse_drift(sde, apply_fn(params, y, s), y, s, 1.0), y)
    return drift, hutchinson(v, pull(v)[0])


def mean_dsm(sde: VariancePreserving, apply_fn: ApplyFn, params: Any, x: jax.Array, noise: DsmNoise) -> jax.Array:
    """The training loss, a scalar."""
    return jnp.mean(dsm(sde, apply_fn, params, x, noise))
