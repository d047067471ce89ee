"""DPM-Solver++(2M): two-step, data prediction linear in the log-SNR (Lu et al. 2022, "DPM-Solver++", Algorithm 2).

With lambda = log(alpha / sigma) = -log(rho), from t to s, u the time before t:

    h = lambda_s - lambda_t,    c = h / (2 (lambda_t - lambda_u))
    D' = (1 + c) D(x, t) - c D(x_u, u)
    x <- (sigma_s / sigma_t) x + alpha_s (1 - e^-h) D'

The first step has no u: c = 0, which is DDIM.
"""

from score_core.arrays import Array, namespace
from score_core.solvers.few_step import FewStepRule, Memory, kernel, no_history

__all__ = ["DPMSolverPP2M"]


class DPMSolverPP2M(FewStepRule):
    """One evaluation a step, order two. The memory is D and log(rho) of the step before."""

    spacing = "log_snr"

    def init(self, x: Array) -> Memory:
        return no_history(x)

    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        xp = namespace(x)
        (alpha, sigma), (alpha_s, sigma_s) = kernel(self.sde, x, t), kernel(self.sde, x, t_next)
        log_rho = xp.log(sigma / alpha)
        h = log_rho - xp.log(sigma_s / alpha_s)
        _, data = self.predict(x, t)
        data_u, log_rho_u = memory
        c = h / (2 * (log_rho_u - log_rho))
        extrapolated = (1 + c) * data - c * data_u
        return sigma_s / sigma * x - alpha_s * xp.expm1(-h) * extrapolated, (data, log_rho)
