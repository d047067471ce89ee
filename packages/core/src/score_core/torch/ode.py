"""Driving :mod:`score_core.solvers.rk45` in PyTorch, and SciPy's own RK45 as the cross-check.

The state stays on its device; after each attempted step (six evaluations) one bit is read: whether the end is reached.
In float64, as the originals keep their state, steps and evaluation counts are SciPy's; the derivative may compute in
float32 all the same (:func:`in_float32`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.solvers import rk45

__all__ = ["IntegrationError", "in_float32", "integrate", "integrate_scipy", "solver_dtype"]

State = tuple[Tensor, ...]
Derivative = Callable[..., State]


class IntegrationError(ArithmeticError):
    """The step size has shrunk to nothing: the derivative is not finite or not smooth."""


def solver_dtype(device: torch.device) -> torch.dtype:
    """The precision of the solver's state: float64 wherever the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def in_float32(fun: Derivative) -> Derivative:
    """``fun(args, t, y)``, which is handed float32 whatever the state's precision, and whose result returns to it."""

    def derivative(args: Any, t: Tensor, y: State) -> State:
        slopes = fun(args, t.to(torch.float32), tuple(part.to(torch.float32) for part in y))
        return tuple(slope.to(part.dtype) for slope, part in zip(slopes, y, strict=True))

    return derivative


@torch.no_grad()
def integrate(
    fun: Derivative,
    args: Any,
    y0: State,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    first_step: float | None = None,
    error_norm: rk45.ErrorNorm | None = None,
) -> tuple[State, Tensor]:
    """Integrates ``dy/dt = fun(args, t, y)`` from ``t0`` to ``t1``.

    Arguments:
        fun: the derivative.
        args: what it needs besides ``(t, y)`` (parameters, probes).
        y0: the state at ``t0``, a tuple of tensors of one precision; one error norm over all of them.
        t0, t1: the interval, in either direction.
        rtol, atol: tolerances.
        first_step, error_norm: instead of those of SciPy.

    Returns:
        The state at ``t1`` and the number of evaluations (int32 scalar). If the integration fails, the state is NaN.
    """

    def derivative(t: Tensor, y: State) -> State:
        return fun(args, t, y)

    start = torch.tensor(t0, dtype=y0[0].dtype, device=y0[0].device)
    # The same rounding as the state's time, so that arriving means being equal.
    end = torch.tensor(t1, dtype=start.dtype).item()
    state = rk45.start(derivative, start, y0, end, rtol, atol, first_step)
    while bool(rk45.unfinished(state, end)):
        state = rk45.attempt(derivative, state, end, rtol, atol, error_norm)
    # NaN instead of a state that never arrived, so that nobody mistakes it for a result.
    arrived = state.t == end
    return tuple(torch.where(arrived, part, torch.nan) for part in state.y), state.nfe


@torch.no_grad()
def integrate_scipy(
    fun: Derivative,
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

    shapes, device = [part.shape for part in y0], y0[0].device
    ends = np.cumsum([part.numel() for part in y0])[:-1]

    def flat(parts: State) -> np.ndarray:
        return np.concatenate([part.detach().cpu().numpy().astype(np.float64).ravel() for part in parts])

    def parts_of(y: np.ndarray) -> State:
        parts = zip(np.split(y, ends), shapes, strict=True)
        return tuple(torch.tensor(part.reshape(shape), dtype=torch.float32, device=device) for part, shape in parts)

    def derivative(t: float, y: np.ndarray) -> np.ndarray:
        return flat(fun(args, torch.tensor(t, dtype=torch.float32, device=device), parts_of(y)))

    solution = scipy_integrate.solve_ivp(derivative, (t0, t1), flat(y0), rtol=rtol, atol=atol, method=method)
    if not solution.success:
        raise IntegrationError(f"SciPy's {method} stopped at t = {solution.t[-1]:g}: {solution.message}")
    return parts_of(solution.y[:, -1]), int(solution.nfev)
