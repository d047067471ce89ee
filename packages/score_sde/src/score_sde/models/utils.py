"""Networks and score functions under the names of the original's ``models.utils``."""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections

from score_core import parameterization
from score_core.jax.networks import MODELS, create_model, init_params, register_model
from score_core.registry import lookup

__all__ = ["apply_fn", "create_model", "get_model", "get_score_fn", "init_model", "register_model"]


def get_model(name: str) -> type[Any]:
    """The network class called ``name``.

    Raises:
        ValueError: there is none.
    """
    return lookup(MODELS, "model", name)


def init_model(rng: jax.Array, config: ml_collections.ConfigDict) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The network of ``config``, its state (always empty) and fresh parameters."""
    data: Any = config.data
    model = create_model(config)
    return model, {}, init_params(model, rng, (data.image_size, data.image_size, data.num_channels))


def apply_fn(model: Any) -> Callable[..., jax.Array]:
    """``f(params, x, labels, dropout_key=None)``: the network; a dropout key means training mode."""

    def f(params: Any, x: jax.Array, labels: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return model.apply({"params": params}, x, labels, train=dropout_key is not None, rngs=rngs)

    return f


def get_score_fn(
    sde: Any, model: Any, params: Any, states: Any = None, train: bool = False, continuous: bool = False
) -> Callable[..., jax.Array]:
    """The score function ``score_fn(x [B, H, W, C], t [B], rng=None)`` of a network with its parameters.

    Arguments:
        sde: the SDE it was trained on. continuous: in continuous time.
        model: the Flax network. params: its parameters. states: its other variables; there are none.
        train: training mode, which needs the dropout key ``rng`` at every call.
    """
    del states

    def score_fn(x: jax.Array, t: jax.Array, rng: jax.Array | None = None) -> jax.Array:
        if train and rng is None:
            raise ValueError("in training mode a score function needs a dropout key: score_fn(x, t, rng)")
        network = apply_fn(model)
        score = parameterization.get_score_fn(
            sde, lambda x, labels: network(params, x, labels, rng if train else None), continuous
        )
        return score(x, t)

    return score_fn
