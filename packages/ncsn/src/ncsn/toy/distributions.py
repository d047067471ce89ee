r"""Distributions whose density, and for mixtures the score, is known.

    GMMDist          0.8 N(5, I) + 0.2 N(-5, I) in any dimension (NCSN, sections 3.2.2 and 4.3)
    GMMDistAnneal    the same with components of variance sigma^2, sigma an argument
    GaussianDist     N(m, diag), well or ill conditioned
    Square, Ring     uniform in a square; around a circle

Every ``sample`` takes a number of points, or a tuple whose first entry is that, and draws from ``generator`` (None:
PyTorch's default one). Densities are in nats.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["GMMDist", "GMMDistAnneal", "GaussianDist", "Ring", "Square"]

Count = int | tuple[int, ...]
MODE_WEIGHTS = (0.8, 0.2)
MODE_CENTRE = 5.0


def _number(n: Count) -> int:
    return n if isinstance(n, int) else n[0]


@dataclass
class GMMDistAnneal:
    """The mixture ``0.8 N(5, sigma^2 I) + 0.2 N(-5, sigma^2 I)`` in ``dim`` dimensions.

    Its components have variance sigma^2, so at noise level sigma it is not the noisy version of itself at sigma = 1,
    which would have 1 + sigma^2: the paper's toy experiment anneals from this one to that at sigma = 1.
    """

    dim: int

    def __post_init__(self) -> None:
        self.mix_probs = torch.tensor(MODE_WEIGHTS)
        centre = torch.full((self.dim,), MODE_CENTRE)
        self.means = torch.stack([centre, -centre])

    def sample(self, n: Count, sigma: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Points ``[n, dim]``."""
        index = torch.multinomial(self.mix_probs, _number(n), replacement=True, generator=generator)
        noise = torch.randn(len(index), self.dim, generator=generator)
        return noise * sigma + self.means[index]

    def _components(self, x: Tensor, sigma: float) -> Tensor:
        """Logarithms of the weighted components ``[B, 2]``."""
        squares = (x[:, None] - self.means).square().sum(-1)
        # parity: the constant of one dimension whatever dim is; it changes the density by a factor, not the score.
        constant = 0.5 * math.log(2 * math.pi * sigma**2)
        return -squares / (2 * sigma**2) - constant + self.mix_probs.log()

    def log_prob(self, x: Tensor, sigma: float = 1.0) -> Tensor:
        """The log-density ``[B]`` of ``x`` ``[B, dim]``, up to a constant in more than one dimension."""
        return torch.logsumexp(self._components(x, sigma), 1)

    def score(self, x: Tensor, sigma: float = 1.0) -> Tensor:
        """The gradient of the log-density ``[B, dim]``."""
        weights = self._components(x, sigma).softmax(1)
        return (weights @ self.means - x) / sigma**2

    def dominant_weight(self, x: Tensor) -> float:
        """The part of the points ``[B, dim]`` that is nearer to the mode of weight 0.8 than to the other."""
        return (x.sum(1) > 0).double().mean().item()


class GMMDist(GMMDistAnneal):
    """The mixture at sigma = 1."""

    def sample(self, n: Count, sigma: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Points ``[n, dim]``."""
        return super().sample(n, sigma, generator)


@dataclass
class Square:
    """Uniform in ``[-range, range]^2``."""

    range: float = 4.0

    def sample(self, n: Count, generator: torch.Generator | None = None) -> Tensor:
        """Points ``[n, 2]``."""
        return (torch.rand(_number(n), 2, generator=generator) - 0.5) * 2 * self.range

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density ``[B]``; -1e10 outside."""
        inside = (x.abs() <= self.range).all(1)
        return torch.where(inside, -2 * math.log(2 * self.range), -1e10)


@dataclass
class Ring:
    """At a normally distributed ``radius`` (standard deviation ``width``), at any angle."""

    radius: float
    width: float

    def sample(self, n: Count, generator: torch.Generator | None = None) -> Tensor:
        """Points ``[n, 2]``."""
        angle = torch.rand(_number(n), generator=generator) * 2 * math.pi
        radius = torch.randn(_number(n), generator=generator) * self.width + self.radius
        return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density ``[B]``."""
        radius = x.norm(dim=1)
        normal = -0.5 * ((radius - self.radius) / self.width).square() - math.log(self.width * math.sqrt(2 * math.pi))
        return normal - torch.log(2 * math.pi * radius)


@dataclass
class GaussianDist:
    """Normal with mean ``(1, ..., dim) / 10`` and unit variances, of which ``ill_conditioned`` makes half 1e-4."""

    dim: int
    ill_conditioned: bool
    mean: Tensor = field(init=False)
    variances: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean = torch.arange(1, self.dim + 1) / 10
        self.variances = torch.ones(self.dim)
        if self.ill_conditioned:
            self.variances[self.dim - self.dim // 2 :] = 1e-4

    def sample(self, n: Count, generator: torch.Generator | None = None) -> Tensor:
        """Points ``[n, dim]``."""
        return self.mean + torch.randn(_number(n), self.dim, generator=generator) * self.variances.sqrt()

    def log_pdf(self, x: Tensor) -> Tensor:
        """The log-density ``[B]``."""
        squares = ((x - self.mean).square() / self.variances).sum(1)
        return -0.5 * (squares + self.variances.log().sum() + self.dim * math.log(2 * math.pi))
