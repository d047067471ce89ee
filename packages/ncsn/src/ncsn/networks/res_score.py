r"""The residual score network of Figure 1 (ScoreNetRunner) and its energy.

block      y = act(GN(conv(act(GN(conv(x))))) + r(x)),   r(x) = x, or a convolution with stride 2 where the size halves
ResScore   convolution, five blocks down to a quarter of the size, five transposed ones up, convolution;  of 2 x - 1
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["ConvResBlock", "DeconvResBlock", "ResEnergy", "ResScore"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "leakyrelu": lambda: nn.LeakyReLU(0.2),
}
_GROUPS = 8


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


class ConvResBlock(nn.Module):
    """Residual block; ``resize`` halves the size in its first convolution.

    Arguments: ``in_channel`` and ``out_channel`` (multiples of 8; equal unless ``resize``); ``act``: elu, relu,
    softplus or leakyrelu.
    """

    def __init__(self, in_channel: int, out_channel: int, resize: bool = False, act: str = "relu") -> None:
        super().__init__()
        first, second, residual = self._convolutions(in_channel, out_channel, resize)
        self.final_act = _activation(act)
        self.main = nn.Sequential(
            first,
            nn.GroupNorm(_GROUPS, out_channel),
            _activation(act),
            second,
            nn.GroupNorm(_GROUPS, out_channel),
        )
        self.residual = residual

    def _convolutions(
        self, in_channel: int, out_channel: int, resize: bool
    ) -> tuple[nn.Module, nn.Module, nn.Module | None]:
        stride = 2 if resize else 1
        first = nn.Conv2d(in_channel, out_channel, 3, stride=stride, padding=1)
        second = nn.Conv2d(out_channel, out_channel, 3, padding=1)
        return first, second, nn.Conv2d(in_channel, out_channel, 3, stride=2, padding=1) if resize else None

    def forward(self, x: Tensor) -> Tensor:
        return self.final_act(self.main(x) + (x if self.residual is None else self.residual(x)))


class DeconvResBlock(ConvResBlock):
    """The transposed block; ``resize`` doubles the size in its second convolution."""

    def _convolutions(
        self, in_channel: int, out_channel: int, resize: bool
    ) -> tuple[nn.Module, nn.Module, nn.Module | None]:
        twice: dict[str, Any] = {"stride": 2, "output_padding": 1} if resize else {}
        first = nn.ConvTranspose2d(in_channel, out_channel, 3, padding=1)
        second = nn.ConvTranspose2d(out_channel, out_channel, 3, padding=1, **twice)
        return first, second, nn.ConvTranspose2d(in_channel, out_channel, 3, padding=1, **twice) if resize else None


def _down(channels: int, nef: int, act: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, nef, 3, padding=1),
        ConvResBlock(nef, nef, act=act),
        ConvResBlock(nef, 2 * nef, resize=True, act=act),
        ConvResBlock(2 * nef, 2 * nef, act=act),
        ConvResBlock(2 * nef, 4 * nef, resize=True, act=act),
        ConvResBlock(4 * nef, 4 * nef, act=act),
    )


class ResScore(nn.Module):
    """Call with images ``[B, channels, H, W]`` in [0, 1], H and W multiples of 4; scores of the same shape.

    Arguments: ``nef`` and ``ndf``, the widths on the way down and up: equal, multiples of 8. ``channels``: 3 in the
    original, whatever the configuration said.
    """

    def __init__(self, nef: int, ndf: int, channels: int = 3) -> None:
        super().__init__()
        if nef != ndf or nef % _GROUPS:
            raise ValueError(f"model.nef ({nef}) and model.ndf ({ndf}) must be equal and multiples of {_GROUPS}")
        self.convs = _down(channels, nef, "elu")
        self.deconvs = nn.Sequential(
            DeconvResBlock(4 * ndf, 4 * ndf, act="elu"),
            DeconvResBlock(4 * ndf, 2 * ndf, resize=True, act="elu"),
            DeconvResBlock(2 * ndf, 2 * ndf, act="elu"),
            DeconvResBlock(2 * ndf, ndf, resize=True, act="elu"),
            DeconvResBlock(ndf, ndf, act="elu"),
            nn.Conv2d(ndf, channels, 3, padding=1),
        )

    @classmethod
    def from_config(cls, config: Any) -> "ResScore":
        """The network of ``config.model`` for images of ``config.data``."""
        return cls(config.model.nef, config.model.ndf, config.data.channels)

    def forward(self, x: Tensor) -> Tensor:
        # parity: also where the images are logits.
        return self.deconvs(self.convs(2 * x - 1.0))


class ResEnergy(nn.Module):
    """The energy ``[B]`` of images ``[B, 1, H, W]`` in [0, 1]: the mean of the features of ResScore's way down."""

    def __init__(self, nef: int, channels: int = 1) -> None:
        super().__init__()
        self.convs = _down(channels, nef, "softplus")

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(2 * x - 1.0).flatten(1).mean(1)
