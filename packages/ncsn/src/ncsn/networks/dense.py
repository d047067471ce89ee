"""Small score networks with dense layers at the end, which the original held and no runner of it trained.

The original's ``LargeScore`` could not run at the size it was made for and is left out.
"""

from torch import Tensor, nn

__all__ = ["MLPScore", "Score", "SmallScore"]

_GROUPS = 4


class MLPScore(nn.Module):
    """Scores ``[B, 1, 10, 10]`` of images of 100 pixels: four linear layers, each followed by layer normalisation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((100, 1024), (1024, 1024), (1024, 512), (512, 100)):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ELU()]
        self.main = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x.flatten(1)).reshape(-1, 1, 10, 10)


def _normalized(convolution: nn.Module, features: int) -> list[nn.Module]:
    return [convolution, nn.GroupNorm(_GROUPS, features), nn.ELU()]


def _dense(values: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(values, hidden), nn.LayerNorm(hidden), nn.ELU(), nn.Linear(hidden, values))


class _DenseEnd(nn.Module):
    """Convolutions and transposed ones, then dense layers over the whole image."""

    u_net: nn.Sequential
    fc: nn.Sequential

    def forward(self, x: Tensor) -> Tensor:
        h = self.u_net(x)
        return self.fc(h.flatten(1)).reshape(x.shape)


class Score(_DenseEnd):
    """Scores of images ``[B, channels, 28, 28]``, taken as they are."""

    def __init__(self, nef: int, channels: int = 1) -> None:
        super().__init__()
        self.u_net = nn.Sequential(
            *_normalized(nn.Conv2d(channels, nef, 4, stride=2, padding=1), nef),
            *_normalized(nn.Conv2d(nef, 2 * nef, 4, stride=2, padding=1), 2 * nef),
            *_normalized(nn.Conv2d(2 * nef, 4 * nef, 5), 4 * nef),
            *_normalized(nn.ConvTranspose2d(4 * nef, 2 * nef, 5), 2 * nef),
            *_normalized(nn.ConvTranspose2d(2 * nef, nef, 4, stride=2, padding=1), nef),
            nn.ConvTranspose2d(nef, channels, 4, stride=2, padding=1),
            nn.ELU(),
        )
        self.fc = _dense(channels * 28 * 28, 1024)


class SmallScore(_DenseEnd):
    """Scores of images ``[B, channels, 10, 10]``, taken as they are."""

    def __init__(self, nef: int, channels: int = 1) -> None:
        super().__init__()
        self.u_net = nn.Sequential(
            *_normalized(nn.Conv2d(channels, 4 * nef, 4, stride=2, padding=1), 4 * nef),
            *_normalized(nn.Conv2d(4 * nef, 8 * nef, 3, padding=1), 8 * nef),
            *_normalized(nn.ConvTranspose2d(8 * nef, 4 * nef, 3, padding=1), 4 * nef),
            nn.ConvTranspose2d(4 * nef, channels, 4, stride=2, padding=1),
            nn.ELU(),
        )
        self.fc = _dense(channels * 10 * 10, 256)
