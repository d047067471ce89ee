r"""Pieces shared by the networks: activations, initialisers, convolutions and embeddings of the noise level.

Initialisers (uniform in ``[-limit, limit]``, ``k`` the kernel's side, biases zero unless said)

    DDPM    limit = sqrt(3 s / ((fan_in + fan_out) / 2)),  fan_in = k^2 C_in, fan_out = k^2 C_out; s = 0 means s = 1e-10
    NCSN    limit = 1 / sqrt(fan_in), biases drawn with the same limit
    LeCun   normal with variance 1 / fan_in, truncated at two standard deviations (Flax's own)

Embeddings of the noise level

    sinusoidal  f_i = exp(-i ln(10000) / (d/2 - 1)),  [sin(t f), cos(t f)]            (arXiv:1706.03762, section 3.5)
    Fourier     W ~ N(0, scale^2),  [sin(2 pi W log sigma), cos(2 pi W log sigma)]    (arXiv:2006.10739)

The two original programs differ in a few numbers; ``flavor`` says whose are meant:

    pytorch     InstanceNorm++ and VarianceNorm divide by n - 1; InstanceNorm has no parameters; NCSNv2 resizes with its
                corners aligned, its third refine block at 64 pixels has nf channels, its pooled convolutions start like
                the others; NCSNv2 always divides by sigma, NCSN never; noise levels are computed in float64; residual
                blocks own a Dense layer even in a network without conditioning, where nothing reads it
    jax         variances divide by n; InstanceNorm has scale and bias; half-pixel centres; 2 nf channels; LeCun;
                ``model.scale_by_sigma`` decides; float32; no such layer
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from score_core.noise_scales import model_sigmas, model_sigmas64

__all__ = [
    "NIN",
    "Activation",
    "Compact",
    "Conv",
    "Dense",
    "Flavor",
    "GaussianFourierProjection",
    "ScoreNetwork",
    "check_flavor",
    "conv1x1",
    "conv3x3",
    "default_init_",
    "get_activation",
    "level_of",
    "ncsn_conv",
    "noise_levels",
    "rescale_input",
    "timestep_embedding",
    "working_precision",
]

Activation = Callable[[Tensor], Tensor]
Initialiser = Callable[[Tensor, Tensor | None, torch.Generator | None], None]
"""Fills a weight and a bias (None: there is none) in place."""

Flavor = Literal["pytorch", "jax"]
"""Whose numbers where the originals differ; see the module's description."""

ACTIVATIONS: dict[str, Activation] = {
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": functools.partial(F.leaky_relu, negative_slope=0.2),
    "swish": F.silu,
}
"""``config.model.nonlinearity`` (any case) to function."""


def get_activation(name: str) -> Activation:
    """The activation of that name, any case; ``ValueError`` for an unknown one."""
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"unknown nonlinearity {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]


def check_flavor(flavor: str) -> None:
    """``ValueError`` unless ``flavor`` is a :data:`Flavor`."""
    if flavor not in get_args(Flavor):
        raise ValueError(f"unknown flavor {flavor!r}; known: {', '.join(get_args(Flavor))}")


class Compact(nn.Module):
    """A module whose children are called as in Flax: class name, underscore, running number of the class."""

    def add(self, child: nn.Module) -> str:
        """Register ``child`` under its Flax name, which is returned."""
        kind = type(child).__name__
        number = sum(type(other).__name__ == kind for other in self.children())
        self.add_module(f"{kind}_{number}", child)
        return f"{kind}_{number}"


def default_init_(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None, scale: float = 1.0) -> None:
    """The DDPM initialiser of the module's formula, for any weight whose first two axes are in and out."""
    fan = math.prod(weight.shape[2:]) * (weight.shape[0] + weight.shape[1]) / 2
    limit = math.sqrt(3 * (scale or 1e-10) / fan)
    nn.init.uniform_(weight, -limit, limit, generator)
    if bias is not None:
        nn.init.zeros_(bias)


def ncsn_init_(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """The NCSN initialiser of the module's formula."""
    limit = 1 / math.sqrt(math.prod(weight.shape[1:]))
    nn.init.uniform_(weight, -limit, limit, generator)
    if bias is not None:
        nn.init.uniform_(bias, -limit, limit, generator)


def lecun_init_(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """The LeCun initialiser of the module's formula."""
    # Of a normal cut at two standard deviations 0.8796... is left.
    std = 1 / math.sqrt(math.prod(weight.shape[1:])) / 0.87962566103423978
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator)
    if bias is not None:
        nn.init.zeros_(bias)


class Conv(nn.Conv2d):
    """A square convolution ``[B, in, H, W] -> [B, out, H', W']`` that starts as ``init`` says."""

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int = 3,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        init: Initialiser = default_init_,
    ) -> None:
        self.init = init  # before the base class, whose constructor calls reset_parameters
        super().__init__(in_features, features, size, stride, padding, dilation, bias=bias)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        self.init(self.weight, self.bias, generator)


class Dense(nn.Linear):
    """A linear layer that starts as ``init`` says."""

    def __init__(self, in_features: int, features: int, init: Initialiser = default_init_) -> None:
        self.init = init
        super().__init__(in_features, features)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        self.init(self.weight, self.bias, generator)


def conv3x3(
    in_features: int, features: int, *, stride: int = 1, padding: int = 1, bias: bool = True, init_scale: float = 1.0
) -> Conv:
    """A 3x3 convolution with DDPM's initialiser."""
    init = functools.partial(default_init_, scale=init_scale)
    return Conv(in_features, features, 3, stride=stride, padding=padding, bias=bias, init=init)


def conv1x1(in_features: int, features: int) -> Conv:
    """A 1x1 convolution with DDPM's initialiser."""
    return Conv(in_features, features, 1)


def ncsn_conv(in_features: int, features: int, *, size: int = 3, bias: bool = True, dilation: int = 1) -> Conv:
    """A convolution that keeps the size, with NCSN's initialiser."""
    padding = dilation * (size // 2)
    return Conv(in_features, features, size, padding=padding, dilation=dilation, bias=bias, init=ncsn_init_)


class NIN(nn.Module):
    """The same linear map of the channels at every position: ``x W + b``, ``W`` ``[C, units]``."""

    def __init__(self, in_features: int, units: int, init_scale: float = 0.1) -> None:
        super().__init__()
        self.init_scale = init_scale
        self.W = nn.Parameter(torch.empty(in_features, units))
        self.b = nn.Parameter(torch.empty(units))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        default_init_(self.W, self.b, generator, self.init_scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of ``t`` ``[B]`` (float or integer, any range): float32 ``[B, dim]``, ``dim >= 4``.

    An odd ``dim`` gets a zero at the end.
    """
    if dim < 4:
        raise ValueError(f"a sinusoidal embedding needs at least 4 features, {dim} asked for (model.nf)")
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(steps * -(math.log(10000) / (half - 1)))
    angles = t.to(torch.float32)[:, None] * frequencies[None, :]
    return F.pad(torch.cat([torch.sin(angles), torch.cos(angles)], dim=1), (0, dim % 2))


class GaussianFourierProjection(nn.Module):
    """Random Fourier features of a scalar ``[B]``: ``[B, 2 size]``; the parameter ``W`` is never trained."""

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        # parity: W is a parameter (checkpoint, optimiser's list) that asks for no gradient.
        self.W = nn.Parameter(torch.empty(size), requires_grad=False)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh frequencies."""
        nn.init.normal_(self.W, 0.0, self.scale, generator)

    def forward(self, x: Tensor) -> Tensor:
        # Detached too: torch.func differentiates by whatever it is given.
        angles = x[:, None] * self.W.detach()[None, :] * 2 * math.pi
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


def working_precision(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if that is what it is: the precision of statistics and of outputs."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def noise_levels(sigma_min: float, sigma_max: float, num_scales: int, flavor: Flavor) -> Tensor:
    """The noise levels a network is conditioned on: float32 ``[num_scales]``, descending (index 0 the largest)."""
    if flavor == "jax":
        return torch.from_numpy(model_sigmas(sigma_min, sigma_max, num_scales))
    # repaired: divided by in float64 the output was float64 too, and the samplers stopped at the next step.
    return torch.from_numpy(model_sigmas64(sigma_min, sigma_max, num_scales).astype(np.float32))


class ScoreNetwork(Compact):
    """A network that knows the noise levels, as the buffer ``sigmas``, which is in no checkpoint."""

    sigmas: Tensor

    def __init__(self, sigma_min: float, sigma_max: float, num_scales: int, flavor: Flavor) -> None:
        super().__init__()
        check_flavor(flavor)
        self.register_buffer("sigmas", noise_levels(sigma_min, sigma_max, num_scales, flavor), persistent=False)


def level_of(sigmas: Tensor, labels: Tensor) -> Tensor:
    """The noise levels ``sigmas[labels]`` as ``[B, 1, 1, 1]``, to divide the output by.

    Raises ``TypeError`` for labels that are not integers: they are indices of the discrete noise levels.
    """
    if labels.is_floating_point():
        raise TypeError(
            f"this network divides by the noise level of an integer label, the labels are {labels.dtype}: "
            "it was made for discrete noise levels (training.continuous=False)"
        )
    return sigmas[labels][:, None, None, None]


def rescale_input(x: Tensor, centered: bool, num_channels: int, halvings: int) -> Tensor:
    """The image the network works on: ``x`` if the data are in [-1, 1] already (``centered``), else ``2 x - 1``.

    Raises ``ValueError`` unless there are ``num_channels`` channels and both sides are divisible by ``2^halvings``.
    """
    if x.ndim != 4 or x.shape[1] != num_channels or any(side % 2**halvings for side in x.shape[2:]):
        raise ValueError(
            f"the network takes images [B, {num_channels}, H, W] with H and W divisible by {2**halvings}, "
            f"found {tuple(x.shape)} (data.num_channels, data.image_size)"
        )
    return x if centered else 2 * x - 1.0
