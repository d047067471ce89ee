"""DDIM: the exact solution for a constant noise prediction (Song, Meng and Ermon 2021, eq. 12).

    x <- alpha_s D + sqrt(sigma_s^2 - c^2) eps + c z,    c = eta sigma_s sqrt(1 - rho_s^2 / rho_t^2),    z ~ N(0, I)

from t to s, with D and eps at (x, t) (see :mod:`score_core.solvers.few_step`). For eta = 0 it is the Euler method in
the variables (x / alpha, rho), of order one; for eta = 1, c^2 is the variance of p(x_s | x_t, x_0), DDPM's ancestral
step.
"""

from score_core.arrays import Array, namespace
from score_core.solvers.few_step import FewStepRule, Memory, kernel

__all__ = ["DDIM"]


class DDIM(FewStepRule):
    """One evaluation a step, order one; stochastic for ``eta`` > 0."""

    has_stochastic_form = True

    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        (alpha, sigma), (alpha_s, sigma_s) = kernel(self.sde, x, t), kernel(self.sde, x, t_next)
        eps, data = self.predict(x, t)
        if not self.stochastic:
            return alpha_s * data + sigma_s * eps, memory
        xp = namespace(x)
        share = self.eta**2 * (1 - (sigma_s * alpha / (alpha_s * sigma)) ** 2)
        mean = alpha_s * data + sigma_s * xp.sqrt(1 - share) * eps
        return mean + sigma_s * xp.sqrt(share) * noise, memory
