"""The Swissroll: its points, its exact log-density, and the command line of the study.

    t = 3 pi / 2 (1 + 2 u),  point = ((t cos t, t sin t) + noise e) / 5,  u ~ U[0, 1),  e ~ N(0, I)

The density is the mixture of Gaussians along the curve; its mean logarithm is above that of every model.
"""

import argparse
import math

import numpy as np

from variational_sde.flags import count, lambda_value, positive, whole

__all__ = ["expected_log_density", "log_density", "parser", "swiss_roll"]

LAMBDAS = (-10.0, -0.99, -0.9, -0.5, 0.0, 0.5, 0.9, 0.99, 1.0)
"""The family of the paper's Figure 5, and the ODE."""
NOISE, SCALE = 0.5, 5.0


def swiss_roll(n: int, rng: np.random.RandomState, noise: float = NOISE) -> np.ndarray:
    """``n`` points, float32 ``[n, 2]``; the draws and their order are scikit-learn's ``make_swiss_roll``."""
    t = 1.5 * np.pi * (1 + 2 * rng.uniform(size=(1, n)))
    height = 21 * rng.uniform(size=(1, n))
    points = np.concatenate((t * np.cos(t), height, t * np.sin(t))) + noise * rng.standard_normal(size=(3, n))
    # parity: rounded to float32 first, then divided
    return points.T[:, [0, 2]].astype(np.float32) / np.float32(SCALE)


def log_density(points: np.ndarray, nodes: int = 4000) -> np.ndarray:
    """The log-density of the data at ``points`` ``[n, 2]`` in nats, float64 ``[n]``.

    Arguments:
        nodes: points of the midpoint rule along the curve; their distance must be well below the noise.
    """
    t = 1.5 * np.pi * (1 + 2 * (np.arange(nodes) + 0.5) / nodes)
    curve = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / SCALE
    width = NOISE / SCALE
    values = []
    for part in np.array_split(np.asarray(points, np.float64), max(1, len(points) // 1000)):
        squares = ((part[:, None, :] - curve[None]) ** 2).sum(axis=-1) / (-2 * width**2)
        top = squares.max(axis=1)
        values.append(top + np.log(np.exp(squares - top[:, None]).mean(axis=1)))
    return np.concatenate(values) - math.log(2 * math.pi * width**2)


def expected_log_density(n: int = 20_000, seed: int = 0) -> tuple[float, float]:
    """The mean log-density of the data under itself, minus its entropy, and the standard error of that estimate."""
    values = log_density(swiss_roll(n, np.random.RandomState(seed)))
    return float(values.mean()), float(values.std() / math.sqrt(n))


def _lambdas(text: str) -> tuple[float, ...]:
    return tuple(lambda_value(part) for part in text.split(","))


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line of the study."""
    made = argparse.ArgumentParser(
        prog,
        description="Trains on the Swissroll, computes the bound and the ODE's likelihood, samples and draws figures. "
        "Goes on where it was stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--workdir", default="runs/variational_sde/swissroll", help="where everything is written")
    made.add_argument("--num_iterations", type=count, default=20_000, help="updates; the paper's notebook made 100000")
    made.add_argument("--batch_size", type=count, default=256, help="points of a batch")
    made.add_argument("--lr", type=positive, default=0.001, help="Adam's step size")
    made.add_argument("--print_every", type=count, default=2000, help="iterations between bounds and checkpoints")
    made.add_argument("--seed", type=whole, default=0, help="of everything")
    made.add_argument("--vtype", default="rademacher", choices=["rademacher", "gaussian"], help="Hutchinson probe")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    made.add_argument("--num_steps", type=count, default=1000, help="Euler-Maruyama steps")
    made.add_argument("--num_samples", type=count, default=20_000, help="points of lambda 0, 0.5, 1 (paper: 100000)")
    made.add_argument("--figure_samples", type=count, default=8_000, help="points of the other lambdas (paper: 100000)")
    made.add_argument("--elbo_points", type=count, default=1_000_000, help="points of the last bound")
    made.add_argument("--curve_points", type=count, default=20_000, help="points of the bounds during training")
    made.add_argument("--ode_points", type=count, default=10_000, help="points of the ODE's likelihood")
    made.add_argument("--lambdas", type=_lambdas, default=LAMBDAS, help="of the trajectories, such as -0.5,0,1")
    made.add_argument("--force", action="store_true", help="go on although the folder was started otherwise")
    return made
