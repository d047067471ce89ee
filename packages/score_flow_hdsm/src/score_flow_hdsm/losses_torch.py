"""The training losses in PyTorch, with the formulas and the random numbers of :mod:`score_flow_hdsm.losses`.

The order's derivatives come from ``torch.func.jvp`` (order 2) and reverse mode over it (order 3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from score_core.objectives import sample_times
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_core.torch import threefry
from score_core.torch.networks import higher_derivatives
from score_core.torch.noise import Key
from score_flow_hdsm import objectives
from score_flow_hdsm.sdes import importance_times, require_importance

__all__ = ["Draws", "LossParts", "draw", "get_loss_fn", "get_loss_parts_fn", "high_order_terms", "loss_parts"]


class LossParts(NamedTuple):
    """The losses of the three orders, ``[B]`` each; orders that are not trained are zero."""

    first: Tensor
    second: Tensor
    third: Tensor

    @property
    def total(self) -> Tensor:
        return self.first + self.second + self.third


class Draws(NamedTuple):
    """The random arrays of one loss: times ``[B]``, noise and random signs of the images' shape, a dropout seed."""

    t: Tensor
    z: Tensor
    v: Tensor
    dropout_seed: int


def draw(sde: SDE, key: Tensor, x0: Tensor, eps: float, importance: bool, first: int = 0) -> Draws:
    """The numbers that the JAX wing draws from ``key`` (int32 ``[2]``) for the images ``first ...`` of a batch."""
    shape, start = tuple(x0.shape), first * x0[0].numel()
    key, time_key = threefry.split(key)
    key, noise_key = threefry.split(key)
    key, probe_key = threefry.split(key)
    dropout_key = threefry.split(key)[1]
    device = x0.device
    count = threefry.counters(shape, first=start, channels_last=True, device=device)
    u = threefry.uniform(time_key.to(device), threefry.counters(shape[:1], first=first, device=device))
    if importance:
        sde = require_importance(sde, "training.importance_weighting")
        q = u * sde.weight_normalizer(eps)
        t = importance_times(lambda t: sde.cumulative_weight(t, eps), q, eps, sde.T)
    else:
        t = sample_times(u, eps, sde.T)
    v = threefry.randint(probe_key.to(device), count, 2).float() * 2.0 - 1.0
    seed = int(dropout_key[0]) << 32 ^ int(dropout_key[1])
    return Draws(t, threefry.normal(noise_key.to(device), count), v, seed)


def high_order_terms(
    score_fn: Callable[[Tensor], Tensor], x: Tensor, v: Tensor, order: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The score, J v and (order 3) the gradient of <v, J v>, at ``x`` ``[B, ...]``; all three carry gradients."""
    with higher_derivatives():
        if order == 2:
            score, directional = jvp(score_fn, (x,), (v,))  # type: ignore[misc]
            return score, directional, None
        x = x.detach().requires_grad_()
        score, directional = jvp(score_fn, (x,), (v,))  # type: ignore[misc]
        (gradient,) = torch.autograd.grad((directional * v).sum(), x, create_graph=torch.is_grad_enabled())
    return score, directional, gradient


def loss_parts(
    sde: SDE,
    score_fn: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    draws: Draws,
    *,
    order: int,
    reduce_mean: bool = True,
    likelihood_weighting: bool = False,
    importance: bool = False,
) -> LossParts:
    """The losses of given draws.

    Arguments:
        sde: the forward SDE.
        score_fn: ``score_fn(x [B, C, H, W], t [B])``.
        x0: images in the network's range.
        draws: times, noise and probe.
        order: the highest order of score matching.
        reduce_mean, likelihood_weighting: of the first order.
        importance: the times are drawn by their importance, so that they need no weight.
    """
    mean, std = sde.marginal_prob(x0, draws.t)
    x = mean + std[:, None, None, None] * draws.z
    zero = std.new_zeros(std.shape)
    diffusion = sde.sde(x, draws.t)[1] if likelihood_weighting and not importance else None
    if order == 1:
        first = objectives.first_order(std, score_fn(x, draws.t), draws.z, diffusion, reduce_mean)
        return LossParts(first, zero, zero)
    with torch.enable_grad() if order == 3 else torch.set_grad_enabled(torch.is_grad_enabled()):
        score, directional, gradient = high_order_terms(lambda x: score_fn(x, draws.t), x, draws.v, order)
    r = objectives.residual(std, score.detach(), draws.z)
    first = objectives.first_order(std, score, draws.z, diffusion, reduce_mean)
    second = objectives.second_order(std, directional, r, draws.v)
    if gradient is None:
        return LossParts(first, second, zero)
    return LossParts(first, second, objectives.third_order(std, gradient, directional.detach(), r, draws.v))


def get_loss_parts_fn(
    sde: SDE,
    apply_fn: Callable[..., Tensor],
    *,
    order: int = 1,
    reduce_mean: bool = True,
    likelihood_weighting: bool = False,
    importance_weighting: bool = False,
    eps: float = 1e-5,
) -> Callable[..., LossParts]:
    """Builds the losses of a batch, order by order; arguments as in JAX.

    Returns:
        ``losses(params, key, x0 [B, C, H, W], train, first=0) -> LossParts``; ``first`` is the place of ``x0[0]`` in
        the global batch.

    Raises:
        ValueError: another order, a sum reduction with an order above 1, or importance of times for a VE SDE.
        TypeError: in a loss, for a generator in the place of a key.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"training.score_matching_order is {order!r}; it must be 1, 2 or 3")
    if order > 1 and not reduce_mean:
        raise ValueError("training.score_matching_order 2 and 3 need training.reduce_mean = True")
    importance = likelihood_weighting and importance_weighting
    if importance:
        require_importance(sde, "training.importance_weighting")

    def losses(params: Any, key: Key, x0: Tensor, train: bool, first: int = 0) -> LossParts:
        if isinstance(key, torch.Generator):
            raise TypeError("the losses of these papers have no stream of their own in PyTorch: give a key")
        draws = draw(sde, key, x0, eps, importance, first)

        def model_fn(x: Tensor, labels: Tensor) -> Tensor:
            if train:
                torch.manual_seed(draws.dropout_seed ^ first)
            return apply_fn(params, x, labels, train=train)

        return loss_parts(
            sde,
            get_score_fn(sde, model_fn, True),
            x0,
            draws,
            order=order,
            reduce_mean=reduce_mean,
            likelihood_weighting=likelihood_weighting,
            importance=importance,
        )

    return losses


def get_loss_fn(sde: SDE, apply_fn: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    """The sum over the orders, ``losses(params, key, x0, train, first=0) -> [B]``."""
    parts = get_loss_parts_fn(sde, apply_fn, **options)
    return lambda params, key, x0, train, first=0: parts(params, key, x0, train, first).total
