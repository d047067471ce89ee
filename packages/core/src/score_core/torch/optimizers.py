"""The optimisers of NCSN and NCSNv2 by their names in ``optim.optimizer``."""

import argparse
from collections.abc import Iterable

import torch
from torch import nn

from score_core.errors import UsageError

__all__ = ["make_optimizer"]

MOMENTUM = 0.9


def make_optimizer(optim: argparse.Namespace, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, RMSProp or SGD with the settings of the section ``optim`` (``eps`` and ``amsgrad`` may be absent).

    Raises: UsageError for another name.
    """
    match optim.optimizer:
        case "Adam":
            # parity: beta2 is fixed; weight decay is added to the gradient
            return torch.optim.Adam(
                parameters,
                lr=optim.lr,
                betas=(optim.beta1, 0.999),
                eps=getattr(optim, "eps", 1e-8),
                weight_decay=optim.weight_decay,
                amsgrad=getattr(optim, "amsgrad", False),
                fused=True,
            )
        case "RMSProp":
            return torch.optim.RMSprop(parameters, lr=optim.lr, weight_decay=optim.weight_decay)
        case "SGD":
            # parity: weight_decay is not read
            return torch.optim.SGD(parameters, lr=optim.lr, momentum=MOMENTUM)
    raise UsageError(f"optim.optimizer is {optim.optimizer!r}; expected Adam, RMSProp or SGD.")
