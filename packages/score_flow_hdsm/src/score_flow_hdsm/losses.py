"""The training losses in JAX: first order of both programs, second and third order of the high-order one.

The random numbers of one loss come from its key, split in the original's order: time, noise, then

    program      score_flow     mle_score_ode, order 1     orders 2 and 3
    third        dropout        (thrown away)              the probe v
    fourth                      dropout                    dropout
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from score_core.objectives import sample_times
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_flow_hdsm import objectives
from score_flow_hdsm.sdes import importance_times, require_importance

__all__ = [
    "LossParts",
    "Program",
    "draw_times",
    "get_loss_fn",
    "get_loss_parts_fn",
    "high_order_terms",
    "recomputed_terms",
    "terms_along",
    "times_of",
]

Program = Literal["score_flow", "mle_score_ode"]


class LossParts(NamedTuple):
    """The losses of the three orders, ``[B]`` each; orders that are not trained are zero."""

    first: jax.Array
    second: jax.Array
    third: jax.Array

    @property
    def total(self) -> jax.Array:
        return self.first + self.second + self.third


def _fori(n: int, body: Callable[[Any], Any], state: Any) -> Any:
    return jax.lax.fori_loop(0, n, lambda _, s: body(s), state)


def draw_times(
    sde: SDE, key: jax.Array, shape: tuple[int, ...], eps: float, importance: bool, what: str = "the loss"
) -> jax.Array:
    """:func:`times_of` uniform numbers of ``shape``, float32."""
    return times_of(sde, jax.random.uniform(key, shape, jnp.float32), eps, importance, what)


def times_of(sde: SDE, u: jax.Array, eps: float, importance: bool, what: str) -> jax.Array:
    """Times in [eps, T) from ``u`` uniform in [0, 1), of its shape: uniform, or by their importance."""
    if not importance:
        return sample_times(u, eps, sde.T)
    sde = require_importance(sde, what)
    quantiles = u * sde.weight_normalizer(eps)
    return importance_times(lambda t: sde.cumulative_weight(t, eps), quantiles, eps, sde.T, _fori)


def _directional(
    score_fn: Callable[[jax.Array], jax.Array], v: jax.Array
) -> Callable[[jax.Array], tuple[jax.Array, tuple[jax.Array, jax.Array]]]:
    """``x -> <v, J v>``, with the score and J v beside it."""

    def directional(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        score, jvp = jax.jvp(score_fn, (x,), (v,))
        return jnp.sum(jvp * v), (score, jvp)

    return directional


def high_order_terms(
    score_fn: Callable[[jax.Array], jax.Array], x: jax.Array, v: jax.Array, order: int
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The score, J v and (order 3) the gradient of <v, J v>, at ``x`` ``[B, ...]``.

    Order 2 is one forward-mode pass; order 3 one reverse-mode pass over it. All three carry gradients.
    """
    if order == 2:
        return *jax.jvp(score_fn, (x,), (v,)), None
    gradient, (score, jvp) = jax.grad(_directional(score_fn, v), has_aux=True)(x)
    return score, jvp, gradient


def terms_along(
    score_fn: Callable[[jax.Array], jax.Array], x: jax.Array, v: jax.Array, u: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The score, J v, and the derivative of <v, J v> along ``u`` (a number), at ``x`` ``[B, ...]``: forward passes."""
    _, slope, (score, jvp) = jax.jvp(_directional(score_fn, v), (x,), (u,), has_aux=True)
    return score, jvp, slope


def recomputed_terms(
    score_fn: Callable[[Any, jax.Array], jax.Array], params: Any, x: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """:func:`high_order_terms` of order 3 for ``score_fn(params, x)``, differentiated backwards only once.

    The gradient G of <v, J v> is a backward pass, and training would go backwards through it: then everything inside is
    kept, also by blocks that recompute themselves. But for a fixed u, <u, G> is the derivative of <v, J v> along u
    (:func:`terms_along`), and one backward pass over that gives what the parameters need, while blocks recompute as
    ever. Same terms, same gradients up to rounding.
    """

    @jax.custom_vjp
    def terms(params: Any, x: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        score, jvp, gradient = high_order_terms(lambda x: score_fn(params, x), x, v, 3)
        assert gradient is not None  # of order 3
        return score, jvp, gradient

    def forward(params: Any, x: jax.Array, v: jax.Array) -> tuple[Any, Any]:
        return terms(params, x, v), (params, x, v)

    def backward(inputs: Any, cotangents: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        of_score, of_jvp, u = cotangents

        def product(params: Any, x: jax.Array, v: jax.Array) -> jax.Array:
            score, jvp, slope = terms_along(lambda x: score_fn(params, x), x, v, u)
            return jnp.sum(score * of_score) + jnp.sum(jvp * of_jvp) + slope

        return jax.grad(product, argnums=(0, 1, 2))(*inputs)

    terms.defvjp(forward, backward)
    return terms(params, x, v)


def get_loss_parts_fn(
    sde: SDE,
    apply_fn: Callable[..., jax.Array],
    *,
    order: int = 1,
    reduce_mean: bool = True,
    likelihood_weighting: bool = False,
    importance_weighting: bool = False,
    eps: float = 1e-5,
    program: Program = "mle_score_ode",
    recompute: bool = False,
) -> Callable[[Any, jax.Array, jax.Array, bool], LossParts]:
    """Builds the losses of a batch, order by order.

    Arguments:
        sde: the forward SDE.
        apply_fn: ``apply_fn(params, x, labels, dropout_key=None)``; a key means training mode.
        order: 1, 2 or 3: the highest order of score matching.
        reduce_mean: mean over the pixels instead of half their sum (first order only).
        likelihood_weighting: weight ``g^2`` for the first order.
        importance_weighting: with it, draw times by their importance instead of weighting.
        eps: the smallest time.
        program: whose order of draws; it decides the dropout masks of the first order only.
        recompute: order 3 by :func:`recomputed_terms`, for networks that compute inner values again.

    Returns:
        ``losses(params, key, x0 [B, H, W, C], train) -> LossParts``.

    Raises:
        ValueError: another order, a sum reduction with an order above 1, or importance of times for a VE SDE.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"training.score_matching_order is {order!r}; it must be 1, 2 or 3")
    if order > 1 and not reduce_mean:
        raise ValueError("training.score_matching_order 2 and 3 need training.reduce_mean = True")
    importance = likelihood_weighting and importance_weighting
    if importance:
        require_importance(sde, "training.importance_weighting")

    def losses(params: Any, key: jax.Array, x0: jax.Array, train: bool) -> LossParts:
        key, time_key = jax.random.split(key)
        key, noise_key = jax.random.split(key)
        key, probe_key = jax.random.split(key)
        # parity: the high-order program splits once more than score_flow, also in first order
        dropout_key = probe_key if program == "score_flow" else jax.random.split(key)[1]
        t = draw_times(sde, time_key, x0.shape[:1], eps, importance, "training.importance_weighting")
        z = jax.random.normal(noise_key, x0.shape, jnp.float32)
        mean, std = sde.marginal_prob(x0, t)
        x = mean + std[:, None, None, None] * z

        def score_of(params: Any, x: jax.Array) -> jax.Array:
            def model_fn(x: jax.Array, labels: jax.Array) -> jax.Array:
                return apply_fn(params, x, labels, dropout_key=dropout_key if train else None)

            return get_score_fn(sde, model_fn, True)(x, t)

        score_fn = partial(score_of, params)

        zero = jnp.zeros(x0.shape[:1], jnp.float32)
        diffusion = sde.sde(x, t)[1] if likelihood_weighting and not importance else None
        if order == 1:
            return LossParts(objectives.first_order(std, score_fn(x), z, diffusion, reduce_mean), zero, zero)
        # parity: zeros and ones of randint, not the library's random signs
        v = jax.random.randint(probe_key, x0.shape, 0, 2).astype(jnp.float32) * 2.0 - 1.0
        if recompute and order == 3:
            score, jvp, gradient = recomputed_terms(score_of, params, x, v)
        else:
            score, jvp, gradient = high_order_terms(score_fn, x, v, order)
        r = objectives.residual(std, jax.lax.stop_gradient(score), z)
        first = objectives.first_order(std, score, z, diffusion, reduce_mean)
        second = objectives.second_order(std, jvp, r, v)
        if gradient is None:
            return LossParts(first, second, zero)
        return LossParts(first, second, objectives.third_order(std, gradient, jax.lax.stop_gradient(jvp), r, v))

    return losses


def get_loss_fn(sde: SDE, apply_fn: Callable[..., jax.Array], **options: Any) -> Callable[..., jax.Array]:
    """The sum over the orders, ``losses(params, key, x0, train) -> [B]``; options of :func:`get_loss_parts_fn`."""
    parts = get_loss_parts_fn(sde, apply_fn, **options)
    return lambda params, key, x0, train: parts(params, key, x0, train).total
