"""The exponential moving average of the parameters (NCSNv2, technique 5).

    shadow <- mu shadow + (1 - mu) parameter        after every step of the optimiser, no warm-up

Only what is trained is averaged: buffers are the network's own.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from score_core.checkpoints.errors import CheckpointError
from score_core.torch.ema import ema_update

__all__ = ["Average"]


class Average:
    """Averaged parameters of a network.

    Arguments:
        network: without a wrapper; its parameters now are the first average.
        rate: mu, in [0, 1].
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self.rate = rate
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in network.named_parameters()}
        self._copy: nn.Module | None = None

    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's parameters."""
        ema_update(self.shadow.values(), (p.detach() for p in network.parameters()), self.rate)

    def load(self, arrays: Mapping[str, Any], where: Any) -> None:
        """Take over averages by name.

        Raises: CheckpointError if they are of another network.
        """
        fits = arrays.keys() == self.shadow.keys() and all(
            tuple(np.shape(arrays[name])) == tuple(value.shape) for name, value in self.shadow.items()
        )
        if not fits:
            raise CheckpointError(f"{where}: the averaged parameters are not those of the configured network.")
        with torch.no_grad():
            for name, value in self.shadow.items():
                value.copy_(torch.as_tensor(np.asarray(arrays[name])))

    @torch.no_grad()
    def network(self, network: nn.Module) -> nn.Module:
        """A copy of ``network`` (buffers included) with the averaged parameters, in evaluation mode; used again."""
        if self._copy is None:
            module: Any
            for module in network.modules():
                if hasattr(module, "weight_orig"):  # spectral norm leaves a result there that cannot be copied
                    module.weight = module.weight.detach()
            self._copy = copy.deepcopy(network)
        self._copy.load_state_dict({**network.state_dict(), **self.shadow})
        return self._copy.eval()
