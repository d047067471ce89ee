"""The network of the Swissroll study: a(y, t) for points ``[B, dim]``."""

import torch
from torch import Tensor, nn

from variational_sde.torch.unet import Swish

__all__ = ["MLP"]


class MLP(nn.Module):
    """Four linear layers with swish between them on the point and its time.

    Arguments:
        input_dim: dimensions of a point. index_dim: of the time. hidden_dim: width.
    """

    def __init__(self, input_dim: int = 2, index_dim: int = 1, hidden_dim: int = 128) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.index_dim = index_dim
        self.main = nn.Sequential(
            nn.Linear(input_dim + index_dim, hidden_dim),
            Swish(),
            nn.Linear(hidden_dim, hidden_dim),
            Swish(),
            nn.Linear(hidden_dim, hidden_dim),
            Swish(),
            nn.Linear(hidden_dim, input_dim),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.main(torch.cat([x.reshape(-1, self.input_dim), t.reshape(-1, self.index_dim)], dim=1))
