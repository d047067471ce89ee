"""The Flax networks and the table that ``config.model.name`` is looked up in.

A network is called as ``model.apply({"params": params}, x, labels, train=..., rngs={"dropout": key})`` with images
``[B, H, W, C]`` and labels ``[B]`` (see :mod:`score_core.parameterization` for what the labels are).
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax.networks.ddpm import DDPM
from score_core.jax.networks.layers import Flavor, check_flavor
from score_core.jax.networks.ncsn import NCSN
from score_core.jax.networks.ncsnpp import NCSNpp
from score_core.jax.networks.ncsnv2 import NCSNv2_64, NCSNv2_128, NCSNv2_256
from score_core.jax.networks.wideresnet import WideResnet
from score_core.registry import lookup, register

__all__ = [
    "DDPM",
    "MODELS",
    "NCSN",
    "Flavor",
    "NCSNpp",
    "NCSNv2_64",
    "NCSNv2_128",
    "NCSNv2_256",
    "WideResnet",
    "create_model",
    "init_params",
    "register_model",
]

MODELS: dict[str, type[Any]] = {
    "ddpm": DDPM,
    "ncsn": NCSN,
    "ncsnpp": NCSNpp,
    "ncsnv2_64": NCSNv2_64,
    "ncsnv2_128": NCSNv2_128,
    "ncsnv2_256": NCSNv2_256,
}
"""``config.model.name`` to network class."""

C = TypeVar("C", bound=type)


@overload
def register_model(cls: C) -> C: ...


@overload
def register_model(cls: None = None, *, name: str | None = None) -> Callable[[C], C]: ...


def register_model(cls: C | None = None, *, name: str | None = None) -> C | Callable[[C], C]:
    """Class decorator, with or without arguments: make a network known to :func:`create_model`.

    Arguments:
        cls: a ``flax.linen.Module`` class with a class method ``from_config(config)``, or else whose only field is the
            config; where the method takes a ``flavor`` it is handed on.
        name: the value of ``config.model.name`` that means it; the class's own name by default, any case.

    Raises:
        ValueError: the name is taken.
    """
    return register(MODELS, "model", cls, name)


def create_model(config: Any, flavor: Flavor | None = None) -> nn.Module:
    """The network that ``config.model.name`` names, with the hyper-parameters of ``config``.

    Arguments:
        config: with the sections ``model``, ``data`` and ``training``.
        flavor: whose numbers where the two original programs differ (:mod:`score_core.torch.networks.layers`); that of
            the program whose checkpoints are loaded. None: ``config.model.flavor``, "jax" if that is empty or missing.

    Raises:
        ValueError: an unknown name, or a hyper-parameter outside its choices; the message lists the known ones.
    """
    cls = lookup(MODELS, "model", config.model.name)
    chosen: Any = flavor or config.model.get("flavor") or "jax"
    check_flavor(chosen)
    if not hasattr(cls, "from_config"):
        return cls(config)
    # U-Nets have no flavors: their differences are below float32's precision, or in parameters that nothing reads.
    takes_flavor = "flavor" in inspect.signature(cls.from_config).parameters
    return cls.from_config(config, flavor=chosen) if takes_flavor else cls.from_config(config)


def init_params(model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Fresh float32 parameters of ``model`` for images ``(H, W, C)``, as a nested dict.

    Under ``jax.eval_shape`` it gives names and shapes without allocating anything.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    labels = jnp.ones((1,), jnp.int32)
    variables: Any = model.init(key, images, labels, train=False)
    return variables["params"]
