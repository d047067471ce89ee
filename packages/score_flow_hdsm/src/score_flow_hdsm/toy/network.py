"""The toy score network, its derivatives, and its moving average."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from score_core.torch.ema import ema_update

__all__ = ["MovingAverage", "ScoreNetwork", "divergence", "gradient_of_divergence", "jacobian", "time_embedding"]


class MLP(nn.Module):
    """Linear layers with SiLU between them; keys ``layers.0.weight`` ..."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = nn.functional.silu(layer(x))
        return self.layers[-1](x)


def time_embedding(t: Tensor, size: int) -> Tensor:
    """Sines and cosines of the raw time ``[B]``, ``[B, size]``."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * (-np.log(10000) / (half - 1)))
    angles = t[:, None].float() * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, size % 2))


class ScoreNetwork(nn.Module):
    """``m(x [B, dim], t [B])``; the score is m over the kernel's standard deviation.

    Arguments:
        dim: of the data.
        encoder_layers, decoder_layers: hidden widths of the two encoders and of the rest.
        pos_dim: length of the time embedding; the encoders give twice as many features.
    """

    def __init__(
        self,
        dim: int,
        encoder_layers: Sequence[int] = (128, 128),
        pos_dim: int = 64,
        decoder_layers: Sequence[int] = (512, 512),
    ) -> None:
        super().__init__()
        self.pos_dim = pos_dim
        encoded = 2 * pos_dim
        # The order in which the original makes them, on which seeded parameters depend.
        self.net = MLP([2 * encoded, *decoder_layers, dim])
        self.t_encoder = MLP([pos_dim, *encoder_layers, encoded])
        self.x_encoder = MLP([dim, *encoder_layers, encoded])

    @classmethod
    def seeded(cls, generator: torch.Generator, dim: int, **sizes: Any) -> "ScoreNetwork":
        """A network whose parameters are PyTorch's default ones, drawn from ``generator``."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            network = cls(dim, **sizes)
            generator.set_state(torch.get_rng_state())
        return network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        features = (self.x_encoder(x), self.t_encoder(time_embedding(t, self.pos_dim)))
        return self.net(torch.cat(features, -1))


def jacobian(out: Tensor, x: Tensor) -> Tensor:
    """d out_i / d x_j, ``[B, dim, dim]``, row by row; it can be differentiated again."""
    rows = [torch.autograd.grad(out[:, i].sum(), x, create_graph=True)[0] for i in range(out.shape[1])]
    return torch.stack(rows, 1)


def divergence(out: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The trace of the Jacobian, ``[B, 1]``: exact up to two dimensions, else Hutchinson's estimate with one probe."""
    if out.shape[1] <= 2:
        return jacobian(out, x).diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    signs = torch.randint(0, 2, out.shape, generator=generator).to(out.dtype) * 2 - 1
    return probed_divergence(out, x, signs)


def probed_divergence(out: Tensor, x: Tensor, probe: Tensor) -> Tensor:
    """<v, J v> for the probe ``v`` ``[B, dim]``, ``[B, 1]``."""
    (vjp,) = torch.autograd.grad(out, x, probe, create_graph=True)
    return (vjp * probe).sum(1, keepdim=True)


def gradient_of_divergence(trace: Tensor, x: Tensor, *, create_graph: bool = True) -> Tensor:
    """The gradient of a divergence ``[B, 1]`` at ``x``, ``[B, dim]``; zero if it does not depend on ``x``."""
    return torch.autograd.grad(trace.sum(), x, create_graph=create_graph, materialize_grads=True)[0]


class MovingAverage:
    """Averages of a network's parameters: the first update copies them, then ``shadow += 0.001 (p - shadow)``."""

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        self.network, self.decay = network, decay
        self.shadow: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self) -> None:
        parameters = dict(self.network.named_parameters())
        if not self.shadow:
            self.shadow = {name: value.detach().clone() for name, value in parameters.items()}
            return
        ema_update(self.shadow.values(), parameters.values(), self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the averages in the place of its parameters; as it was where there are none yet."""
        if not self.shadow:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            parameter.copy_(values[name])
