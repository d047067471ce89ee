"""What a predictor-corrector loop will do, worked out before it runs; the loops of both wings follow it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from score_core.arrays import ScoreFn
from score_core.correctors import Corrector
from score_core.noise_scales import time_grid
from score_core.sdes import SDE
from score_core.solvers.few_step import (
    FewStepRule,
    few_step_times,
    require_few_step_options,
    require_no_few_step_options,
)

__all__ = ["LoopPlan", "plan_loop"]


class LoopPlan(NamedTuple):
    """A loop over noise levels.

    Attributes:
        few_step: whether the predictor is a few-step rule.
        make_rule: from the score function to the predictor.
        grid: the times, descending; a few-step rule visits the last without a step from it.
        updates: how many steps the predictor makes.
        nfe: function evaluations.
    """

    few_step: bool
    make_rule: Callable[[ScoreFn], Any]
    grid: np.ndarray
    updates: int
    nfe: int


def plan_loop(
    sde: SDE,
    predictor: type[Any],
    corrector: type[Corrector],
    *,
    snr: float,
    n_steps: int,
    corrector_norm: Literal["batch", "sample"],
    probability_flow: bool,
    continuous: bool,
    denoise: bool,
    eps: float,
    steps: int,
    spacing: str,
    eta: float,
) -> LoopPlan:
    """The plan of ``get_pc_sampler``, whose arguments these are.

    Raises:
        ValueError: the options do not fit the predictor, the corrector or the network; the message says what to set.
    """
    corrector(sde, lambda x, _: x, snr, norm=corrector_norm)  # what it refuses is refused here, not when it runs
    if not issubclass(predictor, FewStepRule):
        require_no_few_step_options(predictor, steps, spacing, eta)
        make_rule = partial(predictor, sde, probability_flow=probability_flow)
        # parity: counted as if both rules evaluated the network, even when one of them is "none"
        return LoopPlan(False, make_rule, time_grid(sde.N, T=sde.T, eps=eps), sde.N, sde.N * (n_steps + 1))
    require_few_step_options(predictor, continuous, probability_flow, steps, eta)
    make_rule = partial(predictor, sde, eta=eta)
    make_rule(lambda x, _: x)  # likewise a wrong eta
    levels = steps or sde.N
    grid = few_step_times(sde, levels + (not denoise), spacing or predictor.spacing, eps)
    updates = len(grid) - 1
    nfe = updates * predictor.nfe_per_step + denoise + levels * n_steps * corrector.stochastic
    return LoopPlan(True, make_rule, grid, updates, nfe)
