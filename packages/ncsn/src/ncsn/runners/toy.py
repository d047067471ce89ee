"""ToyRunner: the score of two modes in the plane by sliced score matching, its pictures, and annealing (Figure 3)."""

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor

from ncsn.losses import sliced_score_estimation_vr
from ncsn.networks import ToyMLP
from ncsn.toy.distributions import GMMDist, GMMDistAnneal
from ncsn.toy.plots import Bounds, density_image, draw_density, draw_points, draw_scores, save, score_field
from ncsn.toy.sampling import anneal_langevin_dynamics, langevin_dynamics
from score_core.errors import UsageError
from score_core.noise_scales import langevin_sigmas
from score_core.runs.signals import GracefulStop

__all__ = ["ToyRunner", "train_toy"]

_logger = logging.getLogger(__name__)

STEPS = 10_000
BATCH = 128
POINTS = 1280
FOLDER = "tmp"


def train_toy(teacher: GMMDist, steps: int, stop: GracefulStop | None = None) -> ToyMLP:
    """A network that was shown ``BATCH`` points of ``teacher`` at each of ``steps``; a log line a step, from 0.

    Random numbers come from PyTorch's default generator: the network's first values, then points and projections.
    """
    model = ToyMLP()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999))
    for step in range(steps):
        loss, *_ = sliced_score_estimation_vr(model, teacher.sample(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _logger.info("step: %d, loss: %s", step, loss.item())
        if stop is not None and stop.requested:
            stop.exit()
    return model


class ToyRunner:
    """Arguments: as the runners of images; ``args`` and ``config`` are not read."""

    def __init__(self, args: argparse.Namespace, config: argparse.Namespace, stop: GracefulStop | None = None) -> None:
        self.args, self.config = args, config
        self.stop = GracefulStop() if stop is None else stop

    def train(self, *, steps: int = STEPS, folder: Path = Path(FOLDER)) -> None:
        """Train, then draw six pictures into ``folder``.

        The original showed the two pictures of Langevin dynamics on the screen; here they are files as well.
        """
        teacher = GMMDist(2)
        model = train_toy(teacher, steps, self.stop)
        self.visualize(model, teacher, folder)

    def test(self) -> None:
        """There is none.

        Raises: UsageError.
        """
        raise UsageError("ToyRunner has no --test; AnnealRunner and BaselineRunner have.")

    @staticmethod
    def visualize(model: torch.nn.Module, teacher: GMMDist, folder: Path, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - a constant
        """The density, the scores and the samples of model and data."""
        # parity: the literal None of a step number that nobody gave.
        prefix = f"{None}_"
        save(draw_density, folder / f"{prefix}data.png", density_image(teacher.log_prob, bounds), "Data density")
        save(draw_scores, folder / f"{prefix}scores.png", score_field(model, bounds), "Estimated scores")

        def points(name: str, where: Tensor, title: str) -> None:
            save(draw_points, folder / f"{prefix}{name}.png", where, title, bounds, 0.1)

        points("data_samples", teacher.sample(POINTS), "data samples")
        points("langevin_model", langevin_dynamics(model, bounds.uniform(POINTS)), "Langevin dynamics model")
        save(draw_scores, folder / f"{prefix}data_scores.png", score_field(teacher.score, bounds), "Data scores")
        points("langevin_data", langevin_dynamics(teacher.score, bounds.uniform(POINTS)), "Langevin dynamics data")

    @staticmethod
    def annealed_sampling_exp(
        left: float = -8.0, right: float = 8.0, *, folder: Path = Path(FOLDER)
    ) -> dict[str, Tensor]:
        """Figure 3: points of the mixture drawn exactly, by Langevin dynamics and by annealed Langevin dynamics.

        Returns: the points ``[1280, 2]`` by way: ``iid``, ``langevin``, ``annealed``; four pictures go to ``folder``.
        """
        teacher, bounds = GMMDistAnneal(2), Bounds(left, right)
        save(draw_density, folder / "density.png", density_image(teacher.log_prob, bounds), "Data density")
        clouds = {
            "iid": teacher.sample(POINTS),
            "langevin": langevin_dynamics(teacher.score, bounds.uniform(POINTS)),
            "annealed": anneal_langevin_dynamics(teacher.score, bounds.uniform(POINTS), langevin_sigmas(20, 1, 10)),
        }
        titles = {
            "iid": ("iid_samples", "i.i.d samples"),
            "langevin": ("langevin_samples", "Langevin dynamics samples"),
            "annealed": ("annealed_langevin_samples", "Annealed Langevin dynamics samples"),
        }
        for way, (name, title) in titles.items():
            save(draw_points, folder / f"{name}.png", clouds[way], title, bounds, 0.2)
        return clouds
