"""Sampling from the plug-in reverse SDE by Euler-Maruyama, for any lambda <= 1, and along the ODE.

delta = T / N,  t_i = i delta,  y_{i+1} = y_i + delta mu(t_i, y_i) + sqrt(delta) sigma(t_i, y_i) z_i,  i = 0 .. N - 1.
The noise is added in the last step, too, and the last network time is delta: nothing is cut off, nothing denoised.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.likelihood import hutchinson
from score_core.random import NoiseSource
from score_core.torch.ode import in_float32, integrate, solver_dtype
from variational_sde.sde import check_lambda, reverse_diffusion
from variational_sde.torch.reverse_sde import Generators, PluginReverseSDE

__all__ = [
    "SamplingStopped",
    "StreamNoise",
    "drift_and_divergence",
    "euler_maruyama",
    "make_grid",
    "ode_sample",
    "sample_grid",
]


class SamplingStopped(Exception):
    """Sampling ended early because it was asked to."""


@dataclass(frozen=True)
class StreamNoise:
    """The original's stream: the prior of a batch of ``shape`` from the host, each step's noise from the device."""

    generators: Generators
    shape: tuple[int, ...]
    device: torch.device

    def prior(self) -> tuple[Any, Tensor]:
        return (), torch.randn(self.shape, generator=self.generators.host).to(self.device)

    def begin(self, carry: Any, i: int) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: int, k: int) -> tuple[Any, Tensor]:
        del k
        return self.predictor(carry, i)

    def predictor(self, carry: Any, i: int) -> tuple[Any, Tensor]:
        del i
        return carry, torch.randn(self.shape, generator=self.generators.device, device=self.device)


@torch.inference_mode()
def euler_maruyama(
    sde: PluginReverseSDE,
    noise: NoiseSource,
    num_steps: int,
    *,
    lmbd: float = 0.0,
    mean: float = 0.0,
    std: float = 1.0,
    keep: Collection[int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Draws samples.

    Arguments:
        noise: the prior sample and each step's noise, ``[B, ...]``. Noise is drawn for lambda = 1, too, so that all
            lambdas see the same.
        num_steps: N.
        lmbd: lambda.
        mean, std: of the prior sample that the sampler starts from.
        keep: numbers of steps (1 .. N) whose states are returned; default: only the last state.
        stop: asked before every step.

    Returns:
        The sample ``[B, ...]``, or with ``keep`` the states ``[len(keep), B, ...]`` in ascending order.

    Raises:
        ValueError: lambda above 1, no steps, or steps to keep that there are not.
        SamplingStopped: ``stop`` said so.
    """
    check_lambda(lmbd)
    if num_steps < 1 or (keep is not None and not all(1 <= step <= num_steps for step in keep)):
        raise ValueError(f"num_steps is {num_steps} with states {keep} to keep: at least 1 step, and only steps of it")
    carry, y = noise.prior()
    y = y * std + mean
    T = sde.law.T
    delta = T / num_steps
    times = torch.linspace(0, 1, num_steps + 1, device=y.device) * T
    sigmas = reverse_diffusion(sde.law, T - times, lmbd)
    kept: list[Tensor] = []
    for i in range(num_steps):
        if stop():
            raise SamplingStopped
        mu = sde.mu(times[i].expand(len(y)), y, lmbd)
        carry, z = noise.predictor(carry, i)
        y = y + delta * mu + delta**0.5 * sigmas[i] * z
        if keep is not None and i + 1 in keep:
            kept.append(y)
    return y if keep is None else torch.stack(kept)


@torch.no_grad()
def ode_sample(
    sde: PluginReverseSDE, y0: Tensor, *, rtol: float = 1e-5, atol: float = 1e-5, eps: float = 1e-5
) -> tuple[Tensor, int]:
    """The sample of the ODE (lambda = 1) from ``y0`` ``[B, ...]`` by an adaptive solver, and its evaluations.

    ``eps`` is how far from the data's end the integration stops.
    """

    def derivative(_: None, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (sde.mu(t.expand(len(y[0])), y[0], 1.0),)

    start = (y0.to(solver_dtype(y0.device)),)
    (y,), nfe = integrate(in_float32(derivative), None, start, 0.0, sde.law.T - eps, rtol=rtol, atol=atol)
    return y.to(y0.dtype), int(nfe)


def drift_and_divergence(sde: PluginReverseSDE, y: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The ODE in inference time, dy/ds = f - g a / 2, and its estimated divergence.

    Arguments:
        y: state ``[B, ...]``. s: inference time ``[B]``. v: probe of the shape of ``y``.

    Returns:
        Drift ``[B, ...]`` and divergence ``[B]``.
    """
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        drift = -sde.mu(sde.law.T - s, y, 1.0)
        (vjp,) = torch.autograd.grad(drift, y, v)
    return drift.detach(), hutchinson(v, vjp)


def make_grid(images: Tensor, n: int) -> np.ndarray:
    """``n * n`` images ``[n * n, C, H, W]`` row by row as one float32 array ``[C, n H, n W]``, without gaps."""
    _, channels, height, width = images.shape
    rows = images.reshape(n, n, channels, height, width).permute(2, 0, 3, 1, 4)
    return rows.reshape(channels, n * height, n * width).float().cpu().numpy()


def sample_grid(
    sde: PluginReverseSDE,
    channels: int,
    height: int,
    n: int = 4,
    num_steps: int = 20,
    transform: Callable[[Tensor], Tensor] | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    clip: bool = True,
    *,
    lmbd: float = 0.0,
    noise: NoiseSource | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """A grid of ``n * n`` samples, float32 ``[C, n H, n H]``.

    Arguments:
        transform: maps samples to images (the inverse logit).
        mean, std: of the prior sample that the sampler starts from.
        clip: to [0, 1].
        lmbd: lambda.
        noise: where random numbers come from; by default PyTorch's default generators.
        stop: asked before every step.

    Raises:
        SamplingStopped: ``stop`` said so.
    """
    shape = (n * n, channels, height, height)
    noise = noise or StreamNoise(Generators(), shape, sde.T.device)
    # parity: mean and std act on the prior sample, not on the images
    y = euler_maruyama(sde, noise, num_steps, lmbd=lmbd, mean=mean, std=std, stop=stop)
    images = y if transform is None else transform(y)
    return make_grid(images.clamp(0, 1) if clip else images, n)
