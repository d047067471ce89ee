"""Objectives and the training step under the names of the original's ``losses``.

Batches are dicts with ``image`` ``[B, H, W, C]`` in the network's range, states are
:class:`score_core.jax.training.TrainState`; nothing has a leading device axis.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from score_core.jax import training
from score_core.jax.training import Adam, TrainState
from score_core.sdes import VESDE, VPSDE
from score_sde.experiment import optimizer_settings
from score_sde.models.utils import apply_fn

__all__ = [
    "get_ddpm_loss_fn",
    "get_optimizer",
    "get_sde_loss_fn",
    "get_smld_loss_fn",
    "get_step_fn",
    "optimization_manager",
]

BatchLoss = Callable[[jax.Array, Any, dict[str, Any]], jax.Array]
"""``loss(rng, params, batch)``: the mean loss of a batch."""


def get_optimizer(config: ml_collections.ConfigDict) -> Adam:
    """The optimiser of ``config.optim``.

    Raises:
        NotImplementedError: another one than Adam.
    """
    return Adam(**optimizer_settings(config))


def optimization_manager(config: ml_collections.ConfigDict) -> Callable[[Any, TrainState], tuple[Any, Any]]:
    """``optimize_fn(grads, state) -> (params, optimiser state)`` with warm-up and clipping."""
    return get_optimizer(config).update


def get_sde_loss_fn(
    sde: Any,
    model: Any,
    train: bool,
    reduce_mean: bool = True,
    continuous: bool = True,
    likelihood_weighting: bool = True,
    eps: float = 1e-5,
) -> BatchLoss:
    """The objective in continuous time (equation 7), or the SDE's discrete one if not ``continuous``."""
    losses = training.get_loss_fn(
        sde,
        apply_fn(model),
        continuous=continuous,
        reduce_mean=reduce_mean,
        likelihood_weighting=likelihood_weighting,
        eps=eps,
    )
    return lambda rng, params, batch: jnp.mean(losses(params, rng, batch["image"], train))


def get_smld_loss_fn(vesde: Any, model: Any, train: bool, reduce_mean: bool = False) -> BatchLoss:
    """The discrete objective of SMLD (equation 1).

    Raises:
        TypeError: the SDE is not a VE SDE.
    """
    if not isinstance(vesde, VESDE):
        raise TypeError(f"SMLD needs a VESDE, found {type(vesde).__name__}")
    return get_sde_loss_fn(vesde, model, train, reduce_mean, continuous=False, likelihood_weighting=False)


def get_ddpm_loss_fn(vpsde: Any, model: Any, train: bool, reduce_mean: bool = True) -> BatchLoss:
    """The discrete objective of DDPM (equation 3).

    Raises:
        TypeError: the SDE is not a VP SDE.
    """
    if not isinstance(vpsde, VPSDE):
        raise TypeError(f"DDPM needs a VPSDE, found {type(vpsde).__name__}")
    return get_sde_loss_fn(vpsde, model, train, reduce_mean, continuous=False, likelihood_weighting=False)


class _Optimizer(NamedTuple):
    """A bare function in the place of an :class:`Adam`."""

    function: Callable[[Any, TrainState], tuple[Any, Any]]

    def update(self, grads: Any, state: TrainState) -> tuple[Any, Any]:
        return self.function(grads, state)


def get_step_fn(
    sde: Any,
    model: Any,
    train: bool,
    optimize_fn: Callable[[Any, TrainState], tuple[Any, Any]] | None = None,
    reduce_mean: bool = False,
    continuous: bool = True,
    likelihood_weighting: bool = False,
) -> Callable[[tuple[jax.Array, TrainState], dict[str, Any]], tuple[tuple[jax.Array, TrainState], jax.Array]]:
    """One update (``train``), or one evaluation with the averaged parameters.

    Returns:
        ``step_fn((rng, state), batch) -> ((rng, state), loss)``, to be compiled or scanned by the caller.

    Raises:
        ValueError: training without an ``optimize_fn``, or an objective that the SDE does not have.
    """
    losses = training.get_loss_fn(
        sde,
        apply_fn(model),
        continuous=continuous,
        reduce_mean=reduce_mean,
        likelihood_weighting=likelihood_weighting,
    )
    if train:
        if optimize_fn is None:
            raise ValueError("training needs an optimize_fn, such as optimization_manager(config)")
        update = training.get_update_fn(losses, _Optimizer(optimize_fn), lambda images, key: images)
        return lambda carry, batch: update(carry, batch["image"])

    def evaluate(
        carry: tuple[jax.Array, TrainState], batch: dict[str, Any]
    ) -> tuple[tuple[jax.Array, TrainState], jax.Array]:
        rng, state = carry
        rng, key = jax.random.split(rng)
        return (rng, state), jnp.mean(losses(state.params_ema, key, batch["image"], False))

    return evaluate
