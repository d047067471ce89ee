"""The toy distributions. One NumPy and one PyTorch stream draw a batch, in the original's order.

mog           a mixture of three Gaussians in ``dim`` dimensions, isotropic, the same mean in each coordinate
point         five points on a line, each spread over 0.001
checkerboard  squares of the plane's checkerboard in [-4, 4]^2
swissroll     five copies of a noisy spiral; a batch of ``n`` has 5 ``n`` rows
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["DATA", "MEANS", "VARIANCES", "WEIGHTS", "Streams", "ToyData"]

WEIGHTS = (0.3, 0.3, 0.4)
MEANS = (-2 / 7, -6 / 7, 4 / 7)
VARIANCES = (0.1 / 49, 0.1 / 49, 1 / 49)
_POINTS = (-6.0, -3.0, 0.0, 3.0, 6.0)
_ROLLS = ((0.0, 0.0), (-4.5, -4.5), (-4.5, 4.5), (4.5, -4.5), (4.5, 4.5))


@dataclass
class Streams:
    """The two sources of random numbers of a run, seeded alike.

    Attributes:
        numpy: the legacy generator, whose stream ``np.random.seed`` starts.
        torch: a generator on the CPU.
    """

    numpy: np.random.RandomState
    torch: torch.Generator

    @classmethod
    def seeded(cls, seed: int) -> "Streams":
        return cls(np.random.RandomState(seed), torch.Generator().manual_seed(seed))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.torch)


@dataclass(frozen=True)
class ToyData:
    """A distribution.

    Attributes:
        draw: ``draw(n, dim, streams) -> float32 [n, dim]``, contiguous.
        low, high: the part of the line or plane that is plotted.
        dims: the dimensions it exists in; None: any.
    """

    draw: Callable[[int, int, Streams], Tensor]
    low: float
    high: float
    dims: tuple[int, ...] | None


def _shuffled(parts: list[Tensor], streams: Streams) -> Tensor:
    rows = torch.cat(parts)
    return rows[torch.from_numpy(streams.numpy.permutation(len(rows)))]


def _mog(n: int, dim: int, streams: Streams) -> Tensor:
    weights, means, variances = (torch.tensor(values) for values in (WEIGHTS, MEANS, VARIANCES))
    # parity: the numbers of points are fixed, not drawn, and rounded down after a product in float32
    counts = [int(n * weight) for weight in weights]
    return _shuffled(
        [m + v.sqrt() * streams.normal((k, dim)) for k, m, v in zip(counts, means, variances, strict=True)], streams
    )


def _point(n: int, dim: int, streams: Streams) -> Tensor:
    each = n // len(_POINTS)
    spread = [torch.rand((each, dim), generator=streams.torch) * 1e-3 - 5e-4 for _ in _POINTS]
    return _shuffled([point + part for point, part in zip(_POINTS, spread, strict=True)], streams)


def _checkerboard(n: int, dim: int, streams: Streams) -> Tensor:
    del dim
    rng = streams.numpy
    x1 = rng.rand(n) * 4 - 2
    x2 = rng.rand(n) - 2 * rng.randint(0, 2, n)
    x2 += np.floor(x1) % 2
    return torch.from_numpy(np.stack([x1, x2], 1).astype(np.float32) * 2)


def _swissroll(n: int, dim: int, streams: Streams) -> Tensor:
    del dim
    from sklearn.datasets import make_swiss_roll

    roll = make_swiss_roll(n, noise=1.0, random_state=streams.numpy)[0][:, [0, 2]].astype(np.float32) / 10
    # parity: copy after copy, not shuffled; the two columns lie side by side in memory, which draws of its shape follow
    return torch.from_numpy(
        np.ascontiguousarray(np.concatenate([roll + np.asarray(shift, np.float32) for shift in _ROLLS]))
    )


DATA = {
    "mog": ToyData(_mog, -1.5, 1.5, None),
    "point": ToyData(_point, -7.0, 7.0, (1,)),
    "checkerboard": ToyData(_checkerboard, -4.0, 4.0, (2,)),
    "swissroll": ToyData(_swissroll, -7.0, 7.0, (2,)),
}
"""Every distribution by name."""
