r"""Mixtures of logistic distributions: density, distribution function and its inverse (Ho et al. 2019, "Flow++").

With weights :math:`\pi = \mathrm{softmax}(\mathrm{logits})`, means :math:`m_k`, scales :math:`e^{l_k}`
(:math:`l_k \ge -7`) and :math:`z_k = (x - m_k) e^{-l_k}`,

    log pdf = logsumexp_k(log pi_k + z_k - l_k - 2 softplus(z_k)),   log cdf = logsumexp_k(log pi_k + log sigmoid(z_k)).

``x`` is ``[...]``, the parameters ``[..., K]``.
"""

import jax
import jax.numpy as jnp

__all__ = ["inverse_cdf", "log_cdf", "log_pdf"]

_MIN_LOG_SCALE = -7.0
_STEPS = 200


def _standardize(x: jax.Array, means: jax.Array, log_scales: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_scales = jnp.maximum(log_scales, _MIN_LOG_SCALE)
    return (x[..., None] - means) * jnp.exp(-log_scales), log_scales


def log_pdf(x: jax.Array, logits: jax.Array, means: jax.Array, log_scales: jax.Array) -> jax.Array:
    """The log-density, ``[...]``."""
    z, log_scales = _standardize(x, means, log_scales)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + z - log_scales - 2.0 * jax.nn.softplus(z), axis=-1)


def log_cdf(x: jax.Array, logits: jax.Array, means: jax.Array, log_scales: jax.Array) -> jax.Array:
    """The logarithm of the distribution function, ``[...]``."""
    z, _ = _standardize(x, means, log_scales)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + jax.nn.log_sigmoid(z), axis=-1)


def inverse_cdf(y: jax.Array, logits: jax.Array, means: jax.Array, log_scales: jax.Array) -> jax.Array:
    """The quantiles of ``y`` in [0, 1], by bisection; ``[...]``."""
    scale = jnp.sum(jnp.exp(jnp.maximum(log_scales, _MIN_LOG_SCALE)), axis=-1, keepdims=True)
    y = jnp.clip(y, 0.0, 1.0)
    low = jnp.min(means - 200.0 * scale, axis=-1)
    high = jnp.max(means + 200.0 * scale, axis=-1)

    def halve(_: int, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, low, high = state
        above = jnp.exp(log_cdf(x, logits, means, log_scales)) > y
        return (
            jnp.where(above, (x + low) / 2.0, (x + high) / 2.0),
            jnp.where(above, low, x),
            jnp.where(above, x, high),
        )

    # parity: the first point is 0, wherever the bracket lies
    return jax.lax.fori_loop(0, _STEPS, halve, (jnp.zeros_like(y), low, high))[0]
