"""Pictures of the two studies, as PNG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_core.runs.figures import png_of

__all__ = ["curves_of_bpd", "density", "elbo_curve", "trajectories"]

_INK, _GRID = "#3a3f47", "#d9dce1"
_COLOURS = ("#1f6feb", "#b35900", "#2c7a4b")


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    # The object interface: no pyplot, hence no global state and no choice of a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _finish(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, color=_INK)
    axes.set_ylabel(ylabel, color=_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)


Curve = Sequence[tuple[int, float, float]]
"""Points (iteration, bits/dim, standard error)."""


def curves_of_bpd(curves: Mapping[str, Curve], published: Mapping[str, Curve] | None = None, title: str = "") -> bytes:
    """Two panels: test bits/dim with error bars, and the standard error itself, against the iteration."""
    figure, (left, right) = _canvas(9, 3.4, 2)
    for colour, (name, points) in zip(_COLOURS, curves.items(), strict=False):
        x, y, error = (np.array(column, float) for column in zip(*points, strict=True))
        later = x > 1  # the untrained network's value would flatten everything else
        left.errorbar(
            x[later], y[later], error[later], color=colour, label=name, linewidth=1.4, capsize=2, elinewidth=0.8
        )
        right.plot(x[later], error[later], color=colour, label=name, linewidth=1.4)
    for colour, (name, points) in zip(_COLOURS, (published or {}).items(), strict=False):
        x, y, error = (np.array(column, float) for column in zip(*points, strict=True))
        left.plot(x[x > 1], y[x > 1], color=colour, linewidth=0.8, linestyle=":", label=f"{name}, published")
        right.plot(x[x > 1], error[x > 1], color=colour, linewidth=0.8, linestyle=":")
    _finish(left, "iteration", "test bits/dim (bound)")
    _finish(right, "iteration", "standard error of it")
    right.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=8, labelcolor=_INK)
    if title:
        figure.suptitle(title, color=_INK, fontsize=10)
    return png_of(figure)


def elbo_curve(rows: Sequence[Mapping[str, float]], entropy: float | None = None) -> bytes:
    """Two panels: the mean loss of each interval, and the bound with error bars below the data's own log-density."""
    figure, (left, right) = _canvas(9, 3.4, 2)
    x = [row["iteration"] for row in rows]
    left.plot(x, [row["loss"] for row in rows], color=_COLOURS[0], linewidth=1.4)
    right.errorbar(
        x,
        [row["elbo"] for row in rows],
        [row["elbo_std_err"] for row in rows],
        color=_COLOURS[0],
        linewidth=1.4,
        capsize=2,
        elinewidth=0.8,
        label="bound of fresh points",
    )
    if entropy is not None:
        right.axhline(entropy, color=_COLOURS[1], linewidth=1, linestyle="--", label="log-density of the data")
    _finish(left, "iteration", "loss (mean since the last point)")
    _finish(right, "iteration", "nats")
    right.legend(frameon=False, fontsize=8, labelcolor=_INK)
    return png_of(figure)


def _tile(points: np.ndarray, bins: int) -> np.ndarray:
    """The histogram of ``[n, 2]`` points on [-5, 5]^2, y upwards, scaled to its maximum."""
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=bins, range=[[-5, 5], [-5, 5]])
    return counts[::-1] / max(counts.max(), 1)


def density(panels: Mapping[str, np.ndarray], bins: int = 200) -> bytes:
    """One histogram a panel on [-5, 5]^2."""
    figure, axes = _canvas(3 * len(panels), 3.3, len(panels))
    for place, (name, points) in zip(axes, panels.items(), strict=True):
        place.imshow(_tile(points, bins), cmap="jet", extent=(-5, 5, -5, 5), interpolation="nearest")
        place.set_title(name, fontsize=10, color=_INK)
        place.set_xticks([])
        place.set_yticks([])
    return png_of(figure)


def trajectories(states: Mapping[float, np.ndarray], steps: Sequence[int]) -> bytes:
    """The paper's Figure 5: a row a lambda, a column a step, histograms of the points on their way.

    Arguments:
        states: lambda to states ``[len(steps), n, 2]``.
    """
    from matplotlib.figure import Figure

    rows, columns = len(states), len(steps)
    figure = Figure(figsize=(1.3 * columns + 0.7, 1.3 * rows + 0.3), dpi=110)
    left, bottom = 0.7 / (1.3 * columns + 0.7), 0.3 / (1.3 * rows + 0.3)
    grid = figure.add_gridspec(rows, columns, wspace=0.02, hspace=0.02, left=left, right=1, bottom=bottom, top=1)
    for row, (lmbd, points) in enumerate(states.items()):
        for column, step in enumerate(steps):
            axes = figure.add_subplot(grid[row, column])
            bins = 256 if points.shape[1] >= 50_000 else 96  # the paper's 256 for its 100,000 points
            axes.imshow(_tile(points[column], bins), cmap="jet", interpolation="antialiased")
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(f"λ={lmbd:.2g}", fontsize=9, color=_INK)
            if row == rows - 1:
                axes.set_xlabel(f"i={step}", fontsize=9, color=_INK)
    return png_of(figure)
