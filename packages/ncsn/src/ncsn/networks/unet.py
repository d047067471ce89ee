"""Score networks of image translation (pix2pix, CycleGAN), which the original held and no runner of it trained.

    skip block   the map and what a smaller U-net makes of it, side by side
    UNetScore    skip blocks down to one pixel (2 at 16 pixels); UNetResScore has a residual block at every step
    ResNetScore  two sizes, six residual blocks at the smaller one

All convolutions are biased, normalisation is that of instances, without parameters.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ResNetScore", "ResnetBlock", "UNetResScore", "UNetScore"]


class ResnetBlock(nn.Module):
    """``x + f(x)``, f two 3x3 convolutions with mirrored borders."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(dim, dim, 3),
            nn.InstanceNorm2d(dim),
            nn.ELU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(dim, dim, 3),
            nn.InstanceNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class SkipBlock(nn.Module):
    """Half the size, ``inner`` there, twice the size; side by side with the input unless ``outermost``.

    Arguments: ``outer`` and ``width``, channels outside and inside; ``inner`` None: nothing there; ``residual``: a
    residual block on the way down and up.
    """

    def __init__(
        self,
        outer: int,
        width: int,
        inner: "SkipBlock | None" = None,
        *,
        channels: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = channels is not None
        outer = outer if channels is None else channels
        down: list[nn.Module] = [nn.Conv2d(outer, width, 4, stride=2, padding=1)]
        up: list[nn.Module] = [
            nn.ELU(),
            nn.ConvTranspose2d(width if inner is None else 2 * width, outer, 4, stride=2, padding=1),
        ]
        if not self.outermost:
            down = [nn.ELU(), *down]
            up.append(nn.InstanceNorm2d(outer))
            if inner is not None:
                down.append(nn.InstanceNorm2d(width))
        if residual:
            down += [nn.ELU(), ResnetBlock(width)]
            up += [nn.ELU(), ResnetBlock(outer)]
            if self.outermost:
                down.append(nn.ELU())
        self.model = nn.Sequential(*down, *([] if inner is None else [inner]), *up)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def _nested(widths: tuple[int, ...], channels: int, residual: bool) -> SkipBlock:
    """Skip blocks of ``widths`` from the outside in, for images of ``channels``."""
    block: SkipBlock | None = None
    for outer, width in reversed(list(itertools.pairwise(widths))):
        block = SkipBlock(outer, width, block, residual=residual)
    return SkipBlock(channels, widths[0], block, channels=channels, residual=residual)


class UNetScore(nn.Module):
    """Call with images ``[B, channels, H, W]`` in [0, 1] (logits if ``rescaled``) of 16 or 32 pixels."""

    def __init__(self, channels: int, ngf: int, image_size: int, *, rescaled: bool = False) -> None:
        super().__init__()
        deep = {32: (2, 4, 8, 8, 8), 16: (2, 4, 8, 8)}
        if image_size not in deep:
            raise ValueError(f"UNetScore is made for 16 or 32 pixels, not {image_size}")
        self.rescaled = rescaled
        self.model = _nested(tuple(ngf * w for w in deep[image_size]), channels, residual=False)

    @classmethod
    def from_config(cls, config: Any) -> "UNetScore":
        """The network of ``config.model`` and ``config.data``."""
        data = config.data
        return cls(data.channels, config.model.ngf, data.image_size, rescaled=data.logit_transform)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x if self.rescaled else 2 * x - 1.0)


class UNetResScore(nn.Module):
    """Call with images ``[B, channels, H, W]`` in [0, 1] (logits if ``rescaled``), H and W multiples of 16."""

    def __init__(self, channels: int, ngf: int, *, rescaled: bool = False) -> None:
        super().__init__()
        self.rescaled = rescaled
        self.model = _nested((2 * ngf, 4 * ngf, 8 * ngf, 8 * ngf), channels, residual=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x if self.rescaled else 2 * x - 1.0)


class ResNetScore(nn.Module):
    """Call with images ``[B, channels, H, W]`` in [0, 1], H and W even."""

    def __init__(self, channels: int, ngf: int) -> None:
        super().__init__()
        width = 2 * ngf

        def normalized(convolution: nn.Module, features: int) -> list[nn.Module]:
            return [convolution, nn.InstanceNorm2d(features), nn.ELU()]

        up = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            *normalized(nn.Conv2d(channels, width, 7), width),
            *normalized(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), 2 * width),
            *[ResnetBlock(2 * width) for _ in range(6)],
            *normalized(up, width),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, channels, 7),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(2 * x - 1.0)
