"""Figures 1, 2 and 3 of the paper with the numbers that say whether they came out."""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncsn.networks import ResScore
from ncsn.runners.toy import STEPS, train_toy
from ncsn.toy.distributions import GMMDist, GMMDistAnneal
from ncsn.toy.plots import Bounds, density_image, draw_density, draw_points, draw_scores, score_field
from ncsn.toy.sampling import anneal_langevin_dynamics, langevin_dynamics
from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError, UserError
from score_core.noise_scales import langevin_sigmas
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_core.torch.score_runner import seed_everything

__all__ = ["figure1", "figure2", "figure3", "roughness", "run", "score_errors"]

_logger = logging.getLogger(__name__)

FIGURE1_STEPS = 1500
FIGURE1_BATCH, FIGURE1_SIZE, FIGURE1_WIDTH = 32, 16, 8
FIGURE3_POINTS = 5000
NOISE_STD = 0.01  # the variance 0.0001 of the paper


def run(args: argparse.Namespace) -> None:
    """What the command line says.

    Raises: UserError, StopRequested.
    """
    for name in ("steps", "points"):
        value = getattr(args, name)
        if value is not None and value < 2:
            raise UsageError(f"--{name} is {value}, expected at least 2.")
    with GracefulStop() as stop, RunLog(args.workdir / "stdout.txt", console=False):
        seed_everything(args.seed)
        begin = time.monotonic()
        match args.figure:
            case "figure1":
                count = args.steps or FIGURE1_STEPS
                values = figure1(args.workdir, count, args.seed, stop)
            case "figure2":
                values, count = figure2(args.workdir, args.steps or STEPS, stop), 100 * 100
            case _:
                values, count = figure3(args.workdir, args.points or FIGURE3_POINTS), args.points or FIGURE3_POINTS
    seconds = time.monotonic() - begin
    common: dict[str, Any] = {"sample_count": count, "dataset": f"toy/{args.figure}", "seed": args.seed}
    results = [Result(name, value, standard_error=error, seconds=seconds, **common) for name, value, error in values]
    add_results(args.workdir / "results.json", results)
    for name, value, error in values:
        print(f"{name}: {value:.4g}" + ("" if error is None else f" +- {error:.2g}"))


Values = list[tuple[str, float, float | None]]
"""Metric, value, standard error."""


def _panels(path: Path, draws: list[Any], *, width: float = 4.2, height: float = 4.2) -> None:
    """Several pictures beside each other; each of ``draws`` is called with its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * len(draws), height), dpi=120, layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
        draw(axes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Choose another --workdir.") from error


def score_errors(score: Any, teacher: GMMDist, bounds: Bounds) -> tuple[float, float]:
    """Relative errors of a score: where the data are, and in the square where they are not.

    Root of ``E |s - s_true|^2 / E |s_true|^2``, over 10,000 points of the data, and over the points of a 100x100 grid
    whose density is below a thousandth of the largest.
    """
    grid = bounds.grid(100)
    density = teacher.log_prob(grid)
    empty = grid[density < density.max() + np.log(1e-3)]

    def relative(points: Tensor) -> float:
        with torch.no_grad():
            true = teacher.score(points)
            return ((score(points) - true).square().sum() / true.square().sum()).sqrt().item()

    return relative(teacher.sample(10_000)), relative(empty)


def figure2(workdir: Path, steps: int, stop: GracefulStop | None = None) -> Values:
    """Figure 2: density and scores of the data, estimated scores; they are right only where data are."""
    teacher, bounds = GMMDist(2), Bounds()
    model = train_toy(teacher, steps, stop)
    image = density_image(teacher.log_prob, bounds)
    _panels(
        workdir / "eval" / "figure_2.png",
        [
            lambda axes: draw_density(axes, image, "Data density"),
            lambda axes: draw_scores(axes, score_field(teacher.score, bounds), "Data scores"),
            lambda axes: draw_scores(axes, score_field(model, bounds), "Estimated scores"),
        ],
    )
    dense, empty = score_errors(model, teacher, bounds)
    return [("score_error_where_data_are", dense, None), ("score_error_elsewhere", empty, None)]


def figure3(workdir: Path, points: int) -> Values:
    """Figure 3: the weight of the mode of weight 0.8 in points drawn exactly, by Langevin dynamics, and annealed."""
    teacher, bounds = GMMDistAnneal(2), Bounds()
    clouds = {
        "iid": teacher.sample(points),
        "langevin": langevin_dynamics(teacher.score, bounds.uniform(points)),
        "annealed": anneal_langevin_dynamics(teacher.score, bounds.uniform(points), langevin_sigmas(20, 1, 10)),
    }
    titles = ("i.i.d. samples", "Langevin dynamics", "Annealed Langevin dynamics")
    draws = []
    values: Values = []
    for (way, cloud), title in zip(clouds.items(), titles, strict=True):
        weight = teacher.dominant_weight(cloud)
        values.append((f"weight_{way}", weight, (weight * (1 - weight) / points) ** 0.5))
        label = f"{title}\n{weight:.3f} in the mode of 0.8"
        shown = cloud[:1280]
        draws.append(lambda axes, c=shown, t=label: draw_points(axes, c, t, bounds, 0.4))
    _panels(workdir / "eval" / "figure_3.png", draws)
    return values


def roughness(losses: np.ndarray) -> float:
    """How wildly a loss goes up and down: the spread of its second half, relative to the size of its mean there."""
    half = losses[len(losses) // 2 :]
    return float(half.std() / abs(half.mean()))


def figure1(workdir: Path, steps: int, seed: int = 0, stop: GracefulStop | None = None) -> Values:
    """Figure 1: the loss of sliced score matching without noise and with noise of variance 0.0001.

    Both trainings begin with the same parameters and see the same images, which ``seed`` decides.
    """
    curves = {std: _sliced_losses(std, steps, seed, stop) for std in (0.0, NOISE_STD)}
    titles = {0.0: "without noise", NOISE_STD: "with noise of variance 0.0001"}

    def draw(axes: Any, std: float) -> None:
        axes.plot(np.arange(1, steps + 1), curves[std], linewidth=0.7, color="#1f4e79")
        axes.set_title(titles[std], fontsize=13)
        axes.set_xlabel("step")
        axes.set_ylabel("sliced score matching loss")
        axes.grid(color="#dddddd", linewidth=0.6)

    table = "\n".join(f"{i},{a},{b}" for i, (a, b) in enumerate(zip(*curves.values(), strict=True), 1))
    atomic_write(workdir / "losses.csv", f"step,without_noise,with_noise\n{table}\n".encode())
    path = workdir / "eval" / "figure_1.png"
    _panels(path, [lambda axes, s=std: draw(axes, s) for std in curves], width=5.2, height=3.6)
    return [
        ("roughness_without_noise", roughness(curves[0.0]), None),
        ("roughness_with_noise", roughness(curves[NOISE_STD]), None),
        ("loss_with_noise", float(curves[NOISE_STD][steps // 2 :].mean()), None),
    ]


def _sliced_losses(noise_std: float, steps: int, seed: int, stop: GracefulStop | None) -> np.ndarray:
    """The losses of a training with ScoreNetRunner's rules: float64 ``[steps]``."""
    from ncsn.losses import sliced_score_estimation_vr
    from score_core.data import Pipeline, load_source
    from score_core.torch.score_runner import to_images

    photos = load_source("photos", "train", image_size=FIGURE1_SIZE)
    data = Pipeline(photos, FIGURE1_BATCH, seed=seed, drop_remainder=False)
    torch.manual_seed(seed)
    model = ResScore(FIGURE1_WIDTH, FIGURE1_WIDTH)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = np.empty(steps)
    with Progress(steps, description=f"noise {noise_std}") as progress:
        for step in range(steps):
            x = to_images(data.batch(step).image, torch.device("cpu"))
            loss, *_ = sliced_score_estimation_vr(model, x + torch.randn_like(x) * noise_std)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[step] = loss.item()
            progress.update(loss=losses[step])
            if stop is not None and stop.requested:
                stop.exit()
    return losses
