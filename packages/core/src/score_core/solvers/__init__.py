"""Integrators beyond the original's: few-step rules that ``sampling.predictor`` can name, and adaptive RK45.

One file each; :mod:`score_core.solvers.few_step` has what the few-step rules share.
"""

from score_core.solvers.ddim import DDIM
from score_core.solvers.dpm_solver import DPMSolverPP2M
from score_core.solvers.exponential_integrator import ExponentialIntegrator, ExponentialIntegrator2
from score_core.solvers.few_step import FewStepRule
from score_core.solvers.heun import Heun

__all__ = ["FEW_STEP_RULES", "FewStepRule"]

FEW_STEP_RULES: dict[str, type[FewStepRule]] = {
    "ddim": DDIM,
    "heun": Heun,
    "dpm_solver_pp_2m": DPMSolverPP2M,
    "exponential_integrator": ExponentialIntegrator,
    "exponential_integrator_2": ExponentialIntegrator2,
}
"""The few-step rules that ``sampling.predictor`` can name, beside those of ``score_core.predictors.PREDICTORS``."""
