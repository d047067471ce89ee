r"""How far a score network is from the score of its own ODE, along the ODE's trajectories (Lu et al. 2022, section 6).

The probability-flow ODE of a score network :math:`s` has densities of its own; their score :math:`y(t)` is found along
a trajectory by solving, from T back to the data, with :math:`h` the ODE's drift,

.. math::
    \dot x = h(x, t), \quad \dot y = -\nabla_x \operatorname{div} h - (\nabla_x h)^\top y, \quad y(T) = \nabla \log p_T.

Differences are reported as :math:`g(t)^2 E|\cdot|^2`, divergences with one Hutchinson probe:

    s_with_odes                 y - s                  s_div_with_normals        div s + D / std^2
    s_with_normals              s + x / std^2          s_grad_div_with_normals   grad div s
    ode_with_normals            y + x / std^2
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.arrays import dims_per_sample, per_sample, sum_dims
from score_core.jax.ode import IntegrationError
from score_core.likelihood import probability_flow_drift
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE

__all__ = ["NAMES", "get_diagnostics_fn"]

NAMES = ("s_with_odes", "s_with_normals", "ode_with_normals", "s_div_with_normals", "s_grad_div_with_normals")


def get_diagnostics_fn(
    sde: SDE,
    apply_fn: Callable[..., jax.Array],
    *,
    eps: float,
    n_times: int = 100,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Callable[[Any, jax.Array, jax.Array], dict[str, np.ndarray]]:
    """Builds the diagnostics of a batch.

    Arguments:
        sde, apply_fn: the score model's.
        eps: the first time; the last is T, ``n_times`` in equal distances.
        rtol, atol: tolerances of SciPy's RK45, which interpolates between its steps.

    Returns:
        ``diagnose(params, x [B, H, W, C], probe)``: each of :data:`NAMES` for every image, float32 ``[n_times, B]``,
        and ``t`` ``[n_times]``.
    """
    times = np.linspace(eps, sde.T, n_times)

    def score_of(params: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)

    @jax.jit
    def drift(params: Any, t: jax.Array, x: jax.Array) -> jax.Array:
        return probability_flow_drift(sde, score_of(params))(x, jnp.full(x.shape[:1], t))

    @jax.jit
    def joint(params: Any, probe: jax.Array, t: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = probability_flow_drift(sde, score_of(params))

        def potential(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, jvp = jax.jvp(lambda x: h(x, jnp.full(x.shape[:1], t)), (x,), (probe,))
            return jnp.sum(jvp * probe) + jnp.sum(value * y), value

        gradient, value = jax.grad(potential, has_aux=True)(x)
        return value, -gradient

    @jax.jit
    def measure(params: Any, probe: jax.Array, t: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        time = jnp.full(x.shape[:1], t)
        score_fn = score_of(params)

        def divergence(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            score, jvp = jax.jvp(lambda x: score_fn(x, time), (x,), (probe,))
            of_sample = sum_dims(jvp * probe)
            return jnp.sum(of_sample), (score, of_sample)

        gradient, (score, div) = jax.grad(divergence, has_aux=True)(x)
        variance = sde.marginal_prob(x, time)[1] ** 2
        normal = -x / per_sample(variance, x)
        squares = (
            sum_dims((y - score) ** 2),
            sum_dims((score - normal) ** 2),
            sum_dims((y - normal) ** 2),
            (div + dims_per_sample(x) / variance) ** 2,
            sum_dims(gradient**2),
        )
        weight = sde.sde(x, time)[1] ** 2
        return tuple(weight * square for square in squares)

    def solve(fun: Callable[..., Any], y0: np.ndarray, t0: float, t1: float, grid: np.ndarray) -> np.ndarray:
        from scipy import integrate

        solution = integrate.solve_ivp(fun, (t0, t1), y0, method="RK45", rtol=rtol, atol=atol, t_eval=grid)
        if not solution.success:
            raise IntegrationError(f"SciPy's RK45 stopped at t = {solution.t[-1]:g}: {solution.message}")
        return solution.y

    def diagnose(params: Any, x: jax.Array, probe: jax.Array) -> dict[str, np.ndarray]:
        shape, size = x.shape, x.size

        def image(y: np.ndarray) -> jax.Array:
            return jnp.asarray(y.reshape(shape), jnp.float32)

        def flat(*parts: jax.Array) -> np.ndarray:
            return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

        def forward(t: float, y: np.ndarray) -> np.ndarray:
            return flat(drift(params, jnp.float32(t), image(y)))

        def backward(t: float, y: np.ndarray) -> np.ndarray:
            return flat(*joint(params, probe, jnp.float32(t), image(y[:size]), image(y[size:])))

        end = solve(forward, flat(x), eps, sde.T, np.asarray([sde.T]))[:, -1]
        start = np.concatenate([end, -end / sde.prior_scale**2])
        states = solve(backward, start, sde.T, eps, times[::-1])[:, ::-1]
        rows = [
            measure(params, probe, jnp.float32(t), image(state[:size]), image(state[size:]))
            for t, state in zip(times, states.T, strict=True)
        ]
        return {"t": times} | {name: np.stack([row[i] for row in rows]) for i, name in enumerate(NAMES)}

    return diagnose
