"""The pictures of the toy experiments: a density, a score field, a cloud of points, each in a square of the plane."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from score_core.errors import UserError

__all__ = ["Bounds", "ScoreField", "density_image", "draw_density", "draw_points", "draw_scores", "save", "score_field"]

DENSITY_POINTS = 100
FIELD_POINTS = 20


class Bounds(NamedTuple):
    """The square ``[left, right]^2``."""

    left: float = -8.0
    right: float = 8.0

    def grid(self, points: int) -> Tensor:
        """``[points^2, 2]``: the first coordinate counts slowly, the second fast."""
        axis = torch.linspace(self.left, self.right, points)
        return torch.cartesian_prod(axis, axis)

    def uniform(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` points anywhere in it: ``[n, 2]``."""
        return torch.rand(n, 2, generator=generator) * (self.right - self.left) + self.left


class ScoreField(NamedTuple):
    """Arrows at points: four arrays of one length."""

    x: np.ndarray
    y: np.ndarray
    u: np.ndarray
    v: np.ndarray


def density_image(log_prob: Callable[[Tensor], Tensor], bounds: Bounds) -> np.ndarray:
    """The density on a grid as an image ``[100, 100]``: rows are the first coordinate from right to left."""
    values = log_prob(bounds.grid(DENSITY_POINTS)).exp().reshape(DENSITY_POINTS, DENSITY_POINTS)
    return np.flipud(values.numpy())


def score_field(score: Callable[[Tensor], Tensor], bounds: Bounds) -> ScoreField:
    """The score on a grid of 20x20 points."""
    points = bounds.grid(FIELD_POINTS)
    with torch.no_grad():
        arrows = score(points)
    return ScoreField(*points.T.numpy(), *arrows.T.numpy())


def _square(axes: Any, title: str, bounds: Bounds | None) -> None:
    axes.set_title(title, fontsize=16)
    axes.set_aspect("equal")
    if bounds is None:
        axes.set_axis_off()
        return
    axes.set_xlim(*bounds)
    axes.set_ylim(*bounds)


def draw_density(axes: Any, image: np.ndarray, title: str) -> None:
    """An image of :func:`density_image`."""
    axes.imshow(image, cmap="inferno")
    _square(axes, title, None)


def draw_scores(axes: Any, field: ScoreField, title: str) -> None:
    """The arrows of :func:`score_field`."""
    axes.quiver(*field, width=0.005)
    _square(axes, title, None)


def draw_points(axes: Any, points: Tensor, title: str, bounds: Bounds, size: float) -> None:
    """A dot of area ``size`` at each of the points ``[n, 2]``."""
    axes.scatter(points[:, 0], points[:, 1], s=size, color="#1f4e79")
    _square(axes, title, bounds)


def save(draw: Callable[..., None], path: Path, *arguments: Any) -> None:
    """``draw(axes, *arguments)`` on a figure of its own, written as PNG.

    Raises: UserError if it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), dpi=150, layout="constrained")
    draw(figure.subplots(), *arguments)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Choose another folder.") from error
