"""The toy study's pictures, drawn without a display."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_flow_hdsm.toy import mixture
from score_flow_hdsm.toy.data import DATA
from score_flow_hdsm.toy.ode import log_density, model_score, ode_score

if TYPE_CHECKING:
    from score_flow_hdsm.toy.train import ToyRun

__all__ = ["grid_points", "paths", "save_figure", "score_plot", "visualize"]

_PATHS, _STEPS, _BINS = 3000, 1000, (800, 200)


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure and its axes ``[rows, columns]``, without the global state of pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, file: Path) -> None:
    """The figure as PNG or JPEG, by the file's name."""
    picture = io.BytesIO()
    figure.savefig(picture, format=file.suffix.removeprefix("."))
    atomic_write(file, picture.getvalue())


def grid_points(low: float, high: float, n: int) -> Tensor:
    """The points of an ``n`` x ``n`` grid, float32 ``[n^2, 2]``, the first coordinate running fastest."""
    line = np.linspace(low, high, n, dtype=np.float32)
    return torch.from_numpy(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2))


def visualize(run: "ToyRun", folder: Path, itr: int, *, with_paths: bool = True) -> None:
    """The densities (and, on a line, the paths) of the parameters as they are, to files named by ``itr``."""
    dim, data = run.settings.dim, DATA[run.settings.data]
    if dim == 2:
        density = plane_density(run)
        buffer = io.BytesIO()
        np.save(buffer, density)
        atomic_write(folder / f"{itr}_density.npy", buffer.getvalue())
        figure, axes = new_figure(1, 1, (4, 4))
        draw_plane(axes[0, 0], density, data.low, data.high)
        save_figure(figure, folder / f"{itr}_marginal.jpg")
    elif dim == 1:
        figure, axes = new_figure(1, 1, (6, 3))
        draw_line(axes[0, 0], run, f"ODE of {run.settings.method}")
        save_figure(figure, folder / f"{itr}_marginal.jpg")
        for kind in ("ode", "sde") if with_paths else ():
            figure, axes = new_figure(3, 1, (6, 6))
            titles = ("data to noise, exact score", "back from the prior, model", "back from the diffused data, model")
            for axis, (title, path) in zip(
                axes[:, 0], zip(titles, paths(run, kind == "ode"), strict=True), strict=True
            ):
                _draw_paths(axis, path, title)
            save_figure(figure, folder / f"{itr}_{kind}_trajectory.jpg")


def plane_density(run: "ToyRun") -> np.ndarray:
    """The density of the model's ODE on the grid ``[n, n]``, rows from low to high."""
    data, n = DATA[run.settings.data], run.settings.grid
    points = grid_points(data.low, data.high, n)
    return np.exp(log_density(run.sde, model_score(run.network, run.sde), points)).reshape(n, n)


def draw_plane(axis: Any, density: np.ndarray, low: float, high: float, title: str = "") -> None:
    """A density on the plane."""
    axis.imshow(density, origin="lower", extent=(low, high, low, high), cmap="inferno", vmin=0)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def draw_line(axis: Any, run: "ToyRun", title: str) -> None:
    """The density of the model's ODE on the line, over the data's (mixture) or a histogram of them."""
    data = DATA[run.settings.data]
    x = torch.linspace(data.low, data.high, 1000)[:, None]
    density = np.exp(log_density(run.sde, model_score(run.network, run.sde), x))
    if run.settings.data == "mog":
        truth = mixture.log_density(run.sde, x, torch.full((len(x),), 1e-5)).exp()
        axis.fill_between(x[:, 0], truth, color="0.8", linewidth=0, label="data")
    else:
        axis.hist(run.draw(5000)[:, 0].numpy(), bins=200, density=True, color="0.8", label="data")
    axis.plot(x[:, 0], density, linewidth=1.2, label="ODE of the model")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("x", fontsize=8)
    axis.set_ylabel("density", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


@torch.no_grad()
def paths(run: "ToyRun", ode: bool) -> list[np.ndarray]:
    """Euler paths ``[steps + 1, n]``, in the order of time: forwards, and backwards from two starts.

    Forwards the ODE needs the data's score, which the mixture has; other data are diffused instead.
    """
    sde, n = run.sde, _PATHS
    generator = torch.Generator().manual_seed(run.settings.seed)
    streams = type(run.streams)(np.random.RandomState(run.settings.seed), generator)
    x0 = DATA[run.settings.data].draw(n, 1, streams)
    exact = run.settings.data == "mog"

    def data_score(x: Tensor, t: Tensor) -> Tensor:
        return mixture.derivatives(sde, x, t)[0]

    forward = _euler(run, x0, data_score, ode and exact, 1.0, generator)
    model = model_score(run.network, sde)
    prior = sde.prior_sampling(torch.randn(x0.shape, generator=generator))
    starts = (prior, torch.from_numpy(forward[-1][:, None]))
    return [forward, *(_euler(run, start, model, ode, -1.0, generator)[::-1] for start in starts)]


def _euler(run: "ToyRun", x: Tensor, score: Any, ode: bool, direction: float, generator: torch.Generator) -> np.ndarray:
    sde, start = run.sde, 1e-5
    times = np.linspace(start, sde.T, _STEPS + 1)
    times = times if direction > 0 else times[::-1]
    found, step = [x[:, 0].numpy()], (sde.T - start) / _STEPS * direction
    for t in times[:-1]:
        time = torch.full((len(x),), float(t))
        drift, g = sde.sde(x, time)
        if ode:
            x = x + step * (drift - 0.5 * g[:, None] ** 2 * score(x, time))
        else:
            noise = g[:, None] * math.sqrt(abs(step)) * torch.randn(x.shape, generator=generator)
            reverse = 0 if direction > 0 else g[:, None] ** 2 * score(x, time)
            x = x + step * (drift - reverse) + noise
        found.append(x[:, 0].numpy())
    return np.stack(found)


def _draw_paths(axis: Any, path: np.ndarray, title: str) -> None:
    """A histogram of paths over time, logarithmic."""
    times = np.broadcast_to(np.linspace(0, 1, len(path))[:, None], path.shape)
    reach = max(3.0, float(np.quantile(np.abs(path), 0.999)))
    counts, _, _ = np.histogram2d(times.ravel(), path.ravel(), bins=_BINS, range=((0, 1), (-reach, reach)))
    axis.imshow(np.log1p(counts).T, origin="lower", aspect="auto", extent=(0, 1, -reach, reach), cmap="inferno")
    axis.set_title(title, fontsize=8)
    axis.set_xlabel("t", fontsize=8)
    axis.tick_params(labelsize=7)


def score_plot(run: "ToyRun", file: Path) -> None:
    """The score of the data and of the model's ODE at time 1e-5 (mixture)."""
    data = DATA[run.settings.data]
    x = torch.linspace(data.low, data.high, 400)[:, None]
    time = torch.full((len(x),), 1e-5)
    figure, axes = new_figure(1, 1, (6, 3))
    axis = axes[0, 0]
    axis.plot(x[:, 0], mixture.derivatives(run.sde, x, time)[0][:, 0], color="0.5", label="data")
    axis.plot(x[:, 0], ode_score(run.sde, model_score(run.network, run.sde), x, 1e-5)[:, 0], label="ODE of the model")
    axis.set_ylim(-130, 130)
    axis.set_xlabel("x")
    axis.set_ylabel("score")
    axis.legend(frameon=False)
    save_figure(figure, file)
