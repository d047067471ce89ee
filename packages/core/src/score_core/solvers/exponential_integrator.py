"""Exponential integrators: the linear part exactly, the noise prediction by a polynomial in time (Zhang and Chen 2023).

DEIS "tAB" replaces eps along the path by its extrapolation in t, here of degree 0 or 1 (their eq. 14 and 15). From t
to s, u the time before t:

    x / alpha_s <- x / alpha_t + (rho_s - rho_t) eps(x, t)
                     + (eps(x, t) - eps(x_u, u)) / (t - u) * integral from t to s of (tau - t) d rho_tau

Degree 0 is the exponential Euler method; its numbers are those of DDIM with eta = 0. Degree 1 has order two. After
integration by parts the integral is (s - t) rho_s - integral of rho_tau d tau, by Gauss-Legendre quadrature.
"""

import numpy as np

from score_core.arrays import Array, as_like, namespace, per_sample
from score_core.solvers.few_step import FewStepRule, Memory, kernel, no_history

__all__ = ["ExponentialIntegrator", "ExponentialIntegrator2"]

# Near t = 0 VP's rho is like the root of t, elsewhere like an exponential: an error of 5e-6 even for three steps.
_X, _W = np.polynomial.legendre.leggauss(12)
_NODES, _WEIGHTS = (_X + 1) / 2, _W / 2  # for the interval [0, 1]


class ExponentialIntegrator(FewStepRule):
    """One evaluation a step, order one."""

    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        (alpha, sigma), (alpha_s, sigma_s) = kernel(self.sde, x, t), kernel(self.sde, x, t_next)
        ratio = alpha_s / alpha
        eps, _ = self.predict(x, t)
        return ratio * x + (sigma_s - sigma * ratio) * eps, memory


class ExponentialIntegrator2(FewStepRule):
    """One evaluation a step, order two. The memory is eps and the time of the step before."""

    def init(self, x: Array) -> Memory:
        return no_history(x)

    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        (alpha, sigma), (alpha_s, sigma_s) = kernel(self.sde, x, t), kernel(self.sde, x, t_next)
        (eps, _), (eps_u, u) = self.predict(x, t), memory
        now, h = per_sample(t, x), per_sample(t_next - t, x)
        slope = (eps - eps_u) / (now - u)
        rho, rho_s = sigma / alpha, sigma_s / alpha_s
        moment = h * (rho_s - self._mean_rho(x, t, t_next))
        return alpha_s * (x / alpha + (rho_s - rho) * eps + moment * slope), (eps, now)

    def _mean_rho(self, x: Array, t: Array, t_next: Array) -> Array:
        """The mean of rho between two times ``[B]``, broadcast against ``x``."""
        xp = namespace(t)
        nodes, weights = (xp.astype(as_like(table, t), t.dtype) for table in (_NODES, _WEIGHTS))
        taus = xp.reshape(t[None, :] + nodes[:, None] * (t_next - t)[None, :], (-1,))
        alpha, sigma = kernel(self.sde, x, taus)
        rho = xp.reshape(sigma / alpha, (len(_NODES), *per_sample(t, x).shape))
        return xp.sum(per_sample(weights, rho) * rho, axis=0)
