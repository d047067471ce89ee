"""Networks of the toy experiments: the score of points in the plane, and parametric densities."""

import math

import torch
from torch import Tensor, nn

__all__ = ["GMM", "Gaussian", "Gaussian4SVI", "ToyMLP"]


class ToyMLP(nn.Sequential):
    """The score of ``[B, dim]``: three linear layers with softplus between them."""

    def __init__(self, dim: int = 2, hidden: int = 128) -> None:
        super().__init__(
            nn.Linear(dim, hidden), nn.Softplus(), nn.Linear(hidden, hidden), nn.Softplus(), nn.Linear(hidden, dim)
        )


def _normal_log_density(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / log_std.exp()).square() - log_std - 0.5 * math.log(2 * math.pi)


class GMM(nn.Module):
    """Log-density ``[B]`` of a learned mixture of three normal distributions with diagonal covariances."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        mean = torch.randn(3, dim)
        mean[0] += 1
        mean[2] -= 1
        self.mean = nn.Parameter(mean)
        self.log_std = nn.Parameter(torch.randn(3, dim))
        self.mix_logits = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        components = _normal_log_density(x[:, None], self.mean, self.log_std).sum(-1)
        return torch.logsumexp(components + self.mix_logits.log_softmax(0), 1)


class Gaussian(nn.Module):
    """Log-density of each coordinate ``[B, dim]`` of a learned normal distribution (not summed)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dim))
        self.log_std = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return _normal_log_density(x, self.mean, self.log_std)


class Gaussian4SVI(nn.Module):
    """Means and log deviations ``[batch_size, dim]`` of one normal distribution per item of a batch."""

    def __init__(self, batch_size: int, dim: int) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.zeros(batch_size, dim))
        self.mean = nn.Parameter(torch.zeros(batch_size, dim))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_std
