r"""What the dequantiser is trained on: one draw of the bound of :mod:`score_flow_hdsm.bound`, less its own entropy.

.. math::
    L(x) = -\log p_T(x_T) + \tfrac12 (\ell_t - 2 \,\mathrm{div} f_{t'}) + \log q(\mathrm{noise} | x) + \mathrm{offset}

at the data :math:`(255 x + \mathrm{noise}) / 256`, with :math:`\ell_t = Z (|\mathrm{std}\, s + z|^2 - |z|^2)` at a time
drawn by its importance, or :math:`g^2 (|s + z / \mathrm{std}|^2 - |z / \mathrm{std}|^2)` at a uniform one, and the
drift's divergence at another uniform time :math:`t'`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from score_core.arrays import dims_per_sample, per_sample, sum_dims
from score_core.likelihood import bpd_offset
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_flow_hdsm.bound import drift_divergence, offset_noise, offset_term, prior_term
from score_flow_hdsm.draws import BatchDraws
from score_flow_hdsm.losses import draw_times
from score_flow_hdsm.sdes import require_importance

__all__ = ["DequantizeFn", "get_dequantizer_loss_fn", "with_noise"]

DequantizeFn = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""``dequantize(variables, u, x in [0, 1]) -> (noise, -log q(noise | x))``."""


def with_noise(x: jax.Array, noise: jax.Array) -> jax.Array:
    """8-bit images ``x`` in [0, 1] with dequantisation ``noise`` in (0, 1): (255 x + noise) / 256."""
    return (x * 255.0 + noise) / 256.0


def get_dequantizer_loss_fn(
    sde: SDE,
    apply_fn: Callable[..., jax.Array],
    dequantize: DequantizeFn,
    *,
    scaler: Callable[[Any], Any],
    inverse_scaler: Callable[[Any], Any],
    eps: float = 1e-5,
    importance_weighting: bool = True,
    eps_offset: bool = True,
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Builds the loss.

    Arguments:
        sde, apply_fn: the score model's.
        dequantize: the flow.
        scaler, inverse_scaler: between [0, 1] and the score model's range.
        eps: the smallest time.
        importance_weighting: draw the time by its importance.
        eps_offset: add the offset term.

    Returns:
        ``loss(variables, score_params, key, x0 [B, H, W, C], train) -> (nats [B], bits/dim [B])``: ``x0`` 8-bit images
        in the score model's range, ``variables`` the flow's.

    Raises:
        ValueError: importance for a VE SDE.
    """
    if importance_weighting:
        require_importance(sde, "--mode=train_deq")
    constant = bpd_offset(inverse_scaler)

    def loss(
        variables: Any, score_params: Any, key: jax.Array, x0: jax.Array, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        draws, shape = BatchDraws(x0.shape[0]), x0.shape[1:]
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(score_params, x, labels), True)

        key, used = draws.split(key)
        image = inverse_scaler(x0)
        noise, entropy = dequantize(variables, draws.normal(used, shape), image)
        x = scaler(with_noise(image, noise))
        if train:
            # parity: a key for the flow's dropout, which it does not have
            key, _ = draws.split(key)
        key, used = draws.split(key)
        total = prior_term(sde, x, draws.normal(used, shape)) - entropy
        key, time_key = draws.split(key)
        t = draw_times(sde, time_key, x.shape[:1], eps, importance_weighting, "--mode=train_deq")
        key, used = draws.split(key)
        total += 0.5 * _matching(sde, score_fn, x, t, draws.normal(used, shape), eps, importance_weighting)
        key, used = draws.split(key)
        z = draws.normal(used, shape)
        key, time_key = draws.split(key)
        t = draw_times(sde, time_key, x.shape[:1], eps, False)
        key, used = draws.split(key)
        mean, std = sde.marginal_prob(x, t)
        total -= drift_divergence(sde, mean + per_sample(std, x) * z, t, draws.signs(used, shape))
        if eps_offset:
            key, used = draws.split(key)
            total += offset_term(sde, score_fn, x, offset_noise(draws, used, shape), eps)
        return total, total / math.log(2) / dims_per_sample(x) + constant

    return loss


def _matching(
    sde: SDE, score_fn: Any, x: jax.Array, t: jax.Array, z: jax.Array, eps: float, importance: bool
) -> jax.Array:
    """The difference of squares of the module's text, ``[B]``."""
    mean, std = sde.marginal_prob(x, t)
    x_t = mean + per_sample(std, x) * z
    score = score_fn(x_t, t)
    if importance:
        normalizer = require_importance(sde, "--mode=train_deq").weight_normalizer(eps)
        return normalizer * sum_dims((per_sample(std, x) * score + z) ** 2 - z**2)
    g = sde.sde(x_t, t)[1]
    return g**2 * (sum_dims((score + z / per_sample(std, x)) ** 2) - sum_dims(z**2) / std**2)
