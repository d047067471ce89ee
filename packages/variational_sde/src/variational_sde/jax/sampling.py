"""Sampling and likelihood in JAX: the rules of :mod:`variational_sde.torch.sampling`, one compiled loop."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from score_core.jax.ode import default_loop, integrate
from score_core.random import NoiseSource
from variational_sde.jax.reverse_sde import ApplyFn, drift_and_divergence
from variational_sde.sde import VariancePreserving, check_lambda, reverse_diffusion, reverse_drift

__all__ = ["euler_maruyama", "ode_log_likelihood"]


def euler_maruyama(
    sde: VariancePreserving,
    apply_fn: ApplyFn,
    params: Any,
    noise: NoiseSource,
    num_steps: int,
    *,
    lmbd: float = 0.0,
    trajectory: bool = False,
) -> jax.Array:
    """Draws samples.

    Arguments:
        noise: the prior sample and each step's noise (a pytree).
        num_steps: N. lmbd: lambda <= 1.
        trajectory: return all states after steps 1 .. N, ``[N, B, ...]``, instead of the last.

    Raises:
        ValueError: lambda above 1, or no steps.
    """
    check_lambda(lmbd)
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: at least 1 step")
    return _run(sde, apply_fn, params, noise, num_steps, lmbd, trajectory)


@partial(jax.jit, static_argnums=(0, 1, 4, 6))
def _run(
    sde: VariancePreserving,
    apply_fn: ApplyFn,
    params: Any,
    noise: Any,
    num_steps: int,
    lmbd: float,
    trajectory: bool,
) -> jax.Array:
    carry, y = noise.prior()
    delta = sde.T / num_steps
    times = jnp.linspace(0, 1, num_steps + 1) * sde.T

    def step(state: tuple[Any, jax.Array], i: jax.Array) -> tuple[tuple[Any, jax.Array], jax.Array | None]:
        carry, y = state
        s = jnp.broadcast_to(sde.T - times[i], (y.shape[0],))
        mu = reverse_drift(sde, apply_fn(params, y, s), y, s, lmbd)
        carry, z = noise.predictor(carry, i)
        y = y + delta * mu + delta**0.5 * reverse_diffusion(sde, s[:1], lmbd)[0] * z
        return (carry, y), y if trajectory else None

    (_, last), states = jax.lax.scan(step, (carry, y), jnp.arange(num_steps))
    return last if states is None else states


def ode_log_likelihood(
    sde: VariancePreserving,
    apply_fn: ApplyFn,
    params: Any,
    x: jax.Array,
    v: jax.Array,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    eps: float = 1e-5,
) -> tuple[jax.Array, int]:
    """The log-density of the ODE's model (lambda = 1) at ``x``, nats ``[B]``, and the number of evaluations.

    NaN if the integration fails. Arguments: see :func:`variational_sde.torch.likelihood.ode_log_likelihood`.
    """

    def derivative(args: Any, s: jax.Array, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        params, v = args
        return drift_and_divergence(sde, apply_fn, params, y[0], jnp.broadcast_to(s, (y[0].shape[0],)), v)

    start = (x, jnp.zeros((x.shape[0],), jnp.float32))
    (z, delta), nfe = integrate(
        derivative, (params, v), start, eps, sde.T, rtol=rtol, atol=atol, loop=default_loop(has_gradient=True)
    )
    return sde.prior_logp(z) + delta, int(nfe)
