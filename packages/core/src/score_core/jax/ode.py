"""Driving :mod:`score_core.solvers.rk45` in JAX, and SciPy's own RK45 as the cross-check.

Two loop forms give the same numbers: ``"scan"`` keeps the whole integration in one ``lax.while_loop`` on the device;
``"host"`` drives the jitted attempt from Python. XLA runs convolution gradients inside a loop about 25 times slower on
a CPU than outside, so the host form is the one to use there when the derivative contains a gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_core.solvers import rk45

__all__ = ["LoopForm", "default_loop", "integrate", "integrate_scipy"]

LoopForm = str
State = tuple[jax.Array, ...]


def default_loop(has_gradient: bool) -> LoopForm:
    """``"host"`` for loops whose body differentiates a network on a CPU, ``"scan"`` otherwise."""
    return "host" if has_gradient and jax.default_backend() == "cpu" else "scan"


class IntegrationError(ArithmeticError):
    """The step size has shrunk to nothing: the derivative is not finite or not smooth."""


def integrate(
    fun: Callable[..., State],
    args: Any,
    y0: State,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    loop: LoopForm = "scan",
    first_step: float | None = None,
    error_norm: rk45.ErrorNorm | None = None,
) -> tuple[State, jax.Array]:
    """Integrates ``dy/dt = fun(args, t, y)`` from ``t0`` to ``t1``.

    Args:
        fun: the derivative; must be the same object from call to call for compilations to be shared.
        args: what it needs besides ``(t, y)`` (parameters, probes), a pytree.
        y0: the state at ``t0``, a tuple of float32 arrays; one error norm over all of them.
        t0, t1: the interval, in either direction.
        rtol, atol: tolerances.
        loop: ``"scan"`` or ``"host"``.
        first_step, error_norm: instead of those of SciPy; the norm, like ``fun``, the same object from call to call.

    Returns:
        The state at ``t1`` and the number of evaluations (int32 scalar). If the integration fails, the state is NaN.
    """
    options = _Options(rtol, atol, first_step, error_norm)
    if loop == "scan":
        return _integrate_scan(fun, args, y0, t0, t1, options)
    state = _start(fun, args, y0, t0, t1, options)
    while bool(rk45.unfinished(state, t1)):
        state = _attempt(fun, args, state, t1, options)
    return _finish(state, t1)


class _Options(NamedTuple):
    """What a compilation depends on besides the derivative and the interval."""

    rtol: float
    atol: float
    first_step: float | None
    error_norm: rk45.ErrorNorm | None


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _start(fun: Callable[..., State], args: Any, y0: State, t0: float, t1: float, options: _Options) -> Any:
    t = jnp.asarray(t0, y0[0].dtype)
    return rk45.start(partial(fun, args), t, y0, t1, options.rtol, options.atol, options.first_step)


@partial(jax.jit, static_argnums=(0, 3, 4), donate_argnums=2)
def _attempt(fun: Callable[..., State], args: Any, state: Any, t1: float, options: _Options) -> Any:
    return rk45.attempt(partial(fun, args), state, t1, options.rtol, options.atol, options.error_norm)


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _integrate_scan(
    fun: Callable[..., State], args: Any, y0: State, t0: float, t1: float, options: _Options
) -> tuple[State, jax.Array]:
    # the inner jits are inlined
    state = jax.lax.while_loop(
        lambda s: rk45.unfinished(s, t1),
        lambda s: _attempt(fun, args, s, t1, options),
        _start(fun, args, y0, t0, t1, options),
    )
    return _finish(state, t1)


def _finish(state: Any, t1: float) -> tuple[State, jax.Array]:
    """NaN instead of a state that never arrived, so that nobody mistakes it for a result."""
    arrived = state.t == t1
    return tuple(jnp.where(arrived, part, jnp.nan) for part in state.y), state.nfe


def integrate_scipy(
    fun: Callable[..., State],
    args: Any,
    y0: State,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "RK45",
) -> tuple[State, int]:
    """The same through ``scipy.integrate.solve_ivp``: float64 state on the host, float32 derivative on the device.

    Raises:
        IntegrationError: if SciPy gives up; with its message.
    """
    from scipy import integrate as scipy_integrate

    shapes = [part.shape for part in y0]
    ends = np.cumsum([part.size for part in y0])[:-1]
    derivative = jax.jit(fun)

    def flat(parts: State) -> np.ndarray:
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

    def parts_of(y: np.ndarray) -> State:
        return tuple(jnp.asarray(p.reshape(s), jnp.float32) for p, s in zip(np.split(y, ends), shapes, strict=True))

    solution = scipy_integrate.solve_ivp(
        lambda t, y: flat(derivative(args, jnp.float32(t), parts_of(y))),
        (t0, t1),
        flat(y0),
        rtol=rtol,
        atol=atol,
        method=method,
    )
    if not solution.success:
        raise IntegrationError(f"SciPy's {method} stopped at t = {solution.t[-1]:g}: {solution.message}")
    return parts_of(solution.y[:, -1]), int(solution.nfev)
