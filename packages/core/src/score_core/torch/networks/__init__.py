"""The PyTorch networks and the table that ``config.model.name`` is looked up in.

A network is called as ``model(x, labels)`` with images ``[B, C, H, W]`` and labels ``[B]`` (see
:mod:`score_core.parameterization` for what the labels are); ``train()`` and ``eval()`` turn dropout on and off.
Modules have the names of the Flax wing's parameter tree, parameters the conventions of PyTorch
(:mod:`score_core.torch.networks.flax_tree`). On a CPU the FIR filters of NCSN++ are several times faster with
``model.to(memory_format=torch.channels_last)`` and images in the same format (``benchmarks/networks_torch.py``).
"""

from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
from torch import nn

from score_core.registry import lookup, register
from score_core.torch.networks.blocks import higher_derivatives
from score_core.torch.networks.ddpm import DDPM
from score_core.torch.networks.flax_tree import load_flax_tree, to_flax_tree
from score_core.torch.networks.layers import Flavor
from score_core.torch.networks.ncsn import NCSN
from score_core.torch.networks.ncsnpp import NCSNpp
from score_core.torch.networks.ncsnv2 import NCSNv2_64, NCSNv2_128, NCSNv2_256
from score_core.torch.networks.wideresnet import WideResnet

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
    "higher_derivatives",
    "init_params",
    "load_flax_tree",
    "register_model",
    "to_flax_tree",
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
        cls: a ``torch.nn.Module`` class with a class method ``from_config(config, flavor)``, or else whose only
            argument is the config.
        name: the value of ``config.model.name`` that means it; the class's own name by default, any case.

    Raises:
        ValueError: the name is taken.
    """
    return register(MODELS, "model", cls, name)


def create_model(config: Any, flavor: Flavor = "pytorch", generator: torch.Generator | None = None) -> nn.Module:
    """The network that ``config.model.name`` names, with the hyper-parameters of ``config``.

    Arguments:
        config: with the sections ``model``, ``data`` and ``training``.
        flavor: whose numbers where the two original programs differ (:mod:`score_core.torch.networks.layers`); that of
            the program whose checkpoints are loaded.
        generator: where the initial parameters come from; None: PyTorch's default generator.

    Raises:
        ValueError: an unknown name, or a hyper-parameter outside its choices; the message lists the known ones.
    """
    cls = lookup(MODELS, "model", config.model.name)
    model = cls.from_config(config, flavor) if hasattr(cls, "from_config") else cls(config)
    if generator is not None:
        init_params(model, generator)
    return model


def init_params(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all parameters of ``model`` anew, in the order of its modules.

    Arguments:
        generator: on the device of the parameters; None: PyTorch's default generator.
    """
    for module in model.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset(generator)
