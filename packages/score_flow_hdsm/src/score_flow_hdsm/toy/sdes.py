"""The SDEs of the toy study, and its times."""

import numpy as np
import torch
from torch import Tensor

from score_core.arrays import Array, namespace, per_sample
from score_core.sdes import SDE
from score_flow_hdsm.sdes import VESDE, VPSDE, importance_times

__all__ = ["SDES", "START_TIME", "ToyVPSDE", "draw_times", "toy_sde"]

START_TIME = 1e-5
SDES = ("VE", "VP")


class ToyVPSDE(VPSDE):
    """VP with the toy study's standard deviation and mean, which differ in the last digits near t = 0."""

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(t)
        exponent = t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)
        # parity: the series reaches half as far as that of the image programs, and the mean follows the deviation
        std = xp.where(exponent <= 1e-3, xp.sqrt(exponent), xp.sqrt(1 - xp.exp(-exponent)))
        return per_sample(xp.sqrt(1 - std**2), x) * x, std


def toy_sde(name: str) -> SDE:
    """``VE`` (sigma from 0.01 to 50) or ``VP`` (beta from 0.1 to 20).

    Raises:
        ValueError: another name.
    """
    if name not in SDES:
        raise ValueError(f"the SDE is {name!r}; it must be one of {', '.join(SDES)}")
    return VESDE() if name == "VE" else ToyVPSDE()


def draw_times(sde: SDE, n: int, rng: np.random.RandomState, *, reweighted: bool, start: float = START_TIME) -> Tensor:
    """Training times ``[n]`` float32: uniform for VE and if ``reweighted``, else by their importance."""
    if reweighted or not isinstance(sde, VPSDE):
        return torch.from_numpy(rng.uniform(start, sde.T, n).astype(np.float32))
    q = rng.uniform(0, sde.cumulative_weight(np.float64(sde.T), start), n)
    return torch.from_numpy(importance_times(lambda t: sde.cumulative_weight(t, start), q, start).astype(np.float32))
