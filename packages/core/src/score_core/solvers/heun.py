"""Heun's method in EDM's variables (Karras et al. 2022, Algorithm 1 with s = alpha, sigma = rho).

    y = x / alpha_t,    d = eps(x, t)
    y' = y + (rho_s - rho_t) d                                             Euler step from t to s
    d' = eps(alpha_s y', s)
    x <- alpha_s (y + (rho_s - rho_t) (d + d') / 2)                        trapezoidal rule

Algorithm 1 ends with an Euler step to sigma = 0, which is the data prediction.
"""

from score_core.arrays import Array
from score_core.solvers.few_step import FewStepRule, Memory, kernel

__all__ = ["Heun"]


class Heun(FewStepRule):
    """Two evaluations a step, order two."""

    nfe_per_step = 2
    spacing = "edm"

    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        (alpha, sigma), (alpha_s, sigma_s) = kernel(self.sde, x, t), kernel(self.sde, x, t_next)
        y, h = x / alpha, sigma_s / alpha_s - sigma / alpha
        slope, _ = self.predict(x, t)
        slope_next, _ = self.predict(alpha_s * (y + h * slope), t_next)
        return alpha_s * (y + h * (slope + slope_next) / 2), memory
