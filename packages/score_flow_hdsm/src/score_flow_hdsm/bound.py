r"""The variational bound on the likelihood of a score SDE (Song et al. 2021b, section 4; Huang et al. 2021).

.. math::
    -\log p(x) \le -E[\log p_T(x_T)] + \tfrac12 \int_\epsilon^T E[I(x_t, t)]\, dt + \mathrm{offset}(x)

    dsm       I = g^2 (|s - q|^2 - |q|^2) - 2 div f,   q = -(x_t - mean) / std^2  the score of the kernel
    sliced    I = g^2 (2 div s + |s|^2) - 2 div f

Divergences are Hutchinson's estimates with one probe. Times drawn by their importance have the weight
:math:`Z\, \mathrm{std}^2 / g^2`. The offset closes the gap between the data and :math:`x_\epsilon`: with
:math:`\mathrm{mean} = a x`, std :math:`= b` at :math:`\epsilon`, and :math:`s` the score there,

    N(x; (x_eps + b^2 s) / a, (b / a)^2) for the data given x_eps,   offset = -E log of it - entropy of N(0, b^2 I).

Log-densities are in nats, ``[B]``.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_core.arrays import dims_per_sample, per_sample, sum_dims
from score_core.jax.ode import default_loop
from score_core.likelihood import bpd_offset, hutchinson
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_flow_hdsm.draws import Draws
from score_flow_hdsm.losses import times_of
from score_flow_hdsm.sdes import require_importance

__all__ = ["drift_divergence", "get_likelihood_bound_fn", "offset_noise", "offset_term", "prior_term"]


def drift_divergence(sde: SDE, x: jax.Array, t: jax.Array, probe: jax.Array) -> jax.Array:
    """div f at ``x`` ``[B, ...]``, ``[B]``."""
    _, vjp = jax.vjp(lambda x: sde.sde(x, t)[0], x)
    return hutchinson(probe, vjp(probe)[0])


def prior_term(sde: SDE, x: jax.Array, noise: jax.Array) -> jax.Array:
    """-log p_T at x_T = mean + std ``noise``."""
    end = jnp.full(x.shape[:1], sde.T, jnp.float32)
    mean, std = sde.marginal_prob(x, end)
    return -sde.prior_logp(mean + per_sample(std, x) * noise)


def offset_term(
    sde: SDE, score_fn: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, noise: jax.Array, eps: float
) -> jax.Array:
    """What stopping at ``eps`` adds to the bound, for ``x`` ``[B, H, W, C]`` and the kernel's ``noise``."""
    t = jnp.full(x.shape[:1], eps, jnp.float32)
    mean, b = sde.marginal_prob(x, t)
    factor, _ = sde.marginal_prob(jnp.ones_like(x), t)
    b_of, a = per_sample(b, x), jnp.mean(factor, axis=tuple(range(1, x.ndim)))
    near = mean + b_of * noise
    expected = (near + b_of**2 * score_fn(near, t)) / factor
    spread, dims = b / a, dims_per_sample(x)
    entropy = dims / 2 * (math.log(2 * math.pi) + 2 * jnp.log(b) + 1)
    reconstruction = dims / 2 * (math.log(2 * math.pi) + 2 * jnp.log(spread))
    return reconstruction + sum_dims((x - expected) ** 2) / (2 * spread**2) - entropy


def offset_noise(draws: Draws, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The noise of :func:`offset_term`."""
    # parity: the key is split twice, and only the second half of the second split is used
    return draws.normal(draws.split(draws.split(key)[0])[1], shape)


def get_likelihood_bound_fn(
    sde: SDE,
    apply_fn: Callable[..., jax.Array],
    *,
    inverse_scaler: Callable[[Any], Any] = lambda x: x,
    dsm: bool = True,
    eps: float = 1e-5,
    N: int = 1000,
    importance_weighting: bool = True,
    eps_offset: bool = True,
    hutchinson_type: str = "Rademacher",
    loop: str | None = None,
) -> Callable[[Any, jax.Array, jax.Array, Draws], tuple[jax.Array, int]]:
    """Builds the bound in bits/dim.

    Arguments:
        sde: the forward SDE.
        apply_fn: ``apply_fn(params, x, labels)``.
        inverse_scaler: model range to data range; fixes the constant of the change of variables.
        dsm: the estimator of the integrand.
        eps: the smallest time.
        N: how many times are drawn for an image.
        importance_weighting: draw them by their importance.
        eps_offset: add the offset term.
        hutchinson_type: ``"Rademacher"`` or ``"Gaussian"``.
        loop: ``"scan"`` or ``"host"``; by default the faster one for the back end.

    Returns:
        ``bound(params, data [B, H, W, C], key, draws) -> (bits/dim [B], N)`` for dequantised data in the model range.

    Raises:
        ValueError: importance for a VE SDE, or another probe.
    """
    if importance_weighting:
        require_importance(sde, "eval.bound")
    kind = hutchinson_type.lower()
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f"hutchinson_type is {hutchinson_type!r}; it must be 'Rademacher' or 'Gaussian'")
    constant = bpd_offset(inverse_scaler)
    form = loop or default_loop(has_gradient=not dsm)

    def score_of(params: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)

    def integrand(params: Any, x: jax.Array, t: jax.Array, noise: jax.Array, probe: jax.Array) -> jax.Array:
        mean, std = sde.marginal_prob(x, t)
        x_t = mean + per_sample(std, x) * noise
        g = sde.sde(x_t, t)[1]
        score_fn = score_of(params)
        if dsm:
            kernel = -(x_t - mean) / per_sample(std**2, x)
            value = g**2 * sum_dims((score_fn(x_t, t) - kernel) ** 2 - kernel**2)
        else:
            score, vjp = jax.vjp(lambda x: score_fn(x, t), x_t)
            value = g**2 * (2.0 * hutchinson(probe, vjp(probe)[0]) + sum_dims(score**2))
        value -= 2.0 * drift_divergence(sde, x_t, t, probe)
        if importance_weighting:
            value *= std**2 / g**2 * require_importance(sde, "eval.bound").weight_normalizer(eps)
        # parity: without importance the interval's length T - eps is taken for 1
        return value

    def step(params: Any, x: jax.Array, carry: tuple[jax.Array, jax.Array], t: jax.Array, draws: Draws) -> Any:
        key, total = carry
        key, probe_key = draws.split(key)
        key, noise_key = draws.split(key)
        # parity: the probe is drawn whichever the estimator
        draw_probe = draws.signs if kind == "rademacher" else draws.normal
        probe = draw_probe(probe_key, x.shape[1:])
        noise = draws.normal(noise_key, x.shape[1:])
        return key, total + integrand(params, x, t, noise, probe) / N

    def begin(key: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
        key, used = draws.split(key)
        return key, times_of(
            sde, jnp.moveaxis(draws.uniform(used, (N,)), 0, -1), eps, importance_weighting, "eval.bound"
        )

    def finish(params: Any, x: jax.Array, key: jax.Array, integral: jax.Array, draws: Draws) -> jax.Array:
        key, used = draws.split(key)
        nll = prior_term(sde, x, draws.normal(used, x.shape[1:])) + 0.5 * integral
        if eps_offset:
            key, used = draws.split(key)
            nll += offset_term(sde, score_of(params), x, offset_noise(draws, used, x.shape[1:]), eps)
        return nll / math.log(2) / dims_per_sample(x) + constant

    def whole(params: Any, x: jax.Array, key: jax.Array, draws: Draws) -> jax.Array:
        key, t = begin(key, draws)
        carry = (key, jnp.zeros(x.shape[:1], jnp.float32))
        (key, integral), _ = jax.lax.scan(lambda c, t: (step(params, x, c, t, draws), None), carry, t)
        return finish(params, x, key, integral, draws)

    jitted = {name: jax.jit(f, static_argnames="draws") for name, f in locals().items() if name in _COMPILED}

    def bound(params: Any, data: jax.Array, key: jax.Array, draws: Draws) -> tuple[jax.Array, int]:
        if form == "scan":
            return jitted["whole"](params, data, key, draws=draws), N
        key, t = jitted["begin"](key, draws=draws)
        carry = (key, jnp.zeros(data.shape[:1], jnp.float32))
        for n in range(N):
            carry = jitted["step"](params, data, carry, t[n], draws=draws)
        return jitted["finish"](params, data, carry[0], carry[1], draws=draws), N

    return bound


_COMPILED = ("whole", "begin", "step", "finish")
