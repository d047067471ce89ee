"""The toy study's numbers: NLL, and the distances between network, ODE and data scores along the diffusion.

All are means over fresh points, weighted by g(t)^2; s is the network's score, y that of its ODE's density, q the data's
(mixture only), n that of the kernel's Gaussian, -x / std^2.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from score_flow_hdsm.toy import mixture
from score_flow_hdsm.toy.network import divergence, gradient_of_divergence
from score_flow_hdsm.toy.ode import model_score, ode_score
from score_flow_hdsm.toy.train import ToyRun

__all__ = ["FISHER", "SCORENET", "eval_fisher", "eval_likelihood", "eval_scorenet"]

SCORENET = ("s_with_ode", "ode_with_normal", "s_with_normal", "div_with_normal", "grad_div")
FISHER = (
    "ode_with_data",
    "s_with_ode",
    "s_with_data",
    "inner_product",
    "div_with_data",
    "s_data_times_ode",
    "ode_squared",
    "ode_with_normal",
    "data_with_normal",
    "s_with_normal",
    "div_with_normal",
    "grad_div",
)


class _Point:
    """Points of the diffused data at one time, with every score there."""

    def __init__(self, run: ToyRun, t: float, n: int, original: bool) -> None:
        sde, x0 = run.sde, run.draw(n)
        self.time = torch.full((len(x0),), t)
        mean, std = sde.marginal_prob(x0, self.time)
        self.x = mean + std[:, None] * run.streams.normal(tuple(x0.shape))
        self.std = std
        self.g2 = (sde.sde(self.x, self.time)[1] ** 2)[:, None]
        score = model_score(run.network, sde)
        x = self.x.detach().requires_grad_()
        s = score(x, self.time)
        div = divergence(s, x, run.streams.torch)
        self.grad_div = gradient_of_divergence(div, x, create_graph=False).detach()
        self.s, self.div = s.detach(), div.detach()
        self.y = torch.from_numpy(ode_score(sde, score, self.x, t, original_divergence=original))
        self.normal = -self.x / std[:, None] ** 2
        # parity: not times the dimension
        self.normal_div = -1 / std[:, None] ** 2 * (1 if original else x0.shape[1])

    def square(self, a: Tensor) -> float:
        """E g^2 |a|^2."""
        return float((self.g2 * a**2).sum(1).mean())

    def product(self, a: Tensor, b: Tensor) -> float:
        """E g^2 <a, b>."""
        return float((self.g2 * a * b).sum(1).mean())


def _repeated(measure: Callable[[], tuple[float, ...]], times: int, original: bool) -> tuple[float, ...]:
    values = np.array([measure() for _ in range(times)])
    means = values.mean(0)
    if original:
        # parity: of the last quantity the last repetition, not the mean
        means[-1] = values[-1, -1]
    return tuple(float(mean) for mean in means)


def eval_scorenet(run: ToyRun, t: float, times: int = 5, n: int = 5000, *, original: bool = False) -> tuple[float, ...]:
    """The quantities of :data:`SCORENET` at time ``t``, means of ``times`` repetitions with ``n`` points each.

    Arguments:
        original: the original's divergences and means, for comparison with its numbers.
    """

    def measure() -> tuple[float, ...]:
        p = _Point(run, t, n, original)
        return (
            p.square(p.y - p.s),
            p.square(p.y - p.normal),
            p.square(p.s - p.normal),
            p.square(p.div - p.normal_div),
            p.square(p.grad_div),
        )

    return _repeated(measure, times, original)


def eval_fisher(run: ToyRun, t: float, times: int = 5, n: int = 5000, *, original: bool = False) -> tuple[float, ...]:
    """The quantities of :data:`FISHER` of a one-dimensional mixture; arguments as :func:`eval_scorenet`."""

    def measure() -> tuple[float, ...]:
        p = _Point(run, t, n, original)
        q, q_div = mixture.derivatives(run.sde, p.x, p.time, 2)
        return (
            p.square(p.y - q),
            p.square(p.s - p.y),
            p.square(p.s - q),
            p.product(p.s - q, p.y - q),
            p.square(p.div - q_div),
            p.product(p.s - q, p.y),
            p.square(p.y),
            p.square(p.y - p.normal),
            p.square(q - p.normal),
            p.square(p.s - p.normal),
            p.square(p.div - p.normal_div),
            p.square(p.grad_div),
        )

    return _repeated(measure, times, original)


def eval_likelihood(run: ToyRun, times: int = 5, n: int = 5000, *, original: bool = False) -> float:
    """The NLL in nats, the mean over ``times`` batches of ``n`` fresh points."""
    return float(np.mean([run.nll(run.draw(n), original_divergence=original) for _ in range(times)]))
