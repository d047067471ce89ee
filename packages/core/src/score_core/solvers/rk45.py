r"""Dormand-Prince 5(4) with SciPy's step-size controller, as pure functions of array states.

One attempt with step :math:`h` from :math:`(t, y)`, :math:`k_1 = f(t, y)` known:

.. math::
    k_s = f(t + c_s h,\; y + h \sum_{r<s} a_{sr} k_r), \quad s = 2..6, \qquad
    y' = y + h \sum_{s \le 6} b_s k_s, \qquad k_7 = f(t + h, y'), \qquad
    e = h \sum_{s \le 7} e_s k_s,

error norm :math:`\|e\| = \mathrm{rms}\big(e / (\mathrm{atol} + \mathrm{rtol} \max(|y|, |y'|))\big)` over *all*
components of the state, accepted if it is below one. The next step is :math:`h` times :math:`0.9 \|e\|^{-1/5}`,
clipped to [0.2, 10] (at most 1 right after a rejection). Every rule is the one of
``scipy.integrate.solve_ivp(method="RK45")``, so the number of function
evaluations is the one that the original codes print; only the state's precision is the caller's. Another error norm
and first step can be given.

A state ``y`` is a tuple of arrays that are integrated together. :func:`attempt` has no data-dependent branch: it can be
the body of ``jax.lax.while_loop`` or of a Python loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from score_core.arrays import namespace

__all__ = ["ErrorNorm", "SolverState", "State", "attempt", "rms_norm", "start", "unfinished"]

_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_E = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)

_SAFETY, _MIN_FACTOR, _MAX_FACTOR, _EXPONENT = 0.9, 0.2, 10.0, -1 / 5

State = tuple[Any, ...]
Derivative = Callable[[Any, State], State]
ErrorNorm = Callable[[State, State, State, Any], Any]
"""``norm(error, y, y_new, t_new)``: the size of a step's error as a scalar array; a step is accepted below one."""


class SolverState(NamedTuple):
    """A point of the integration.

    Attributes:
        t: scalar array, the time reached.
        y: the state there.
        f: its derivative there.
        h: scalar array, the size (positive) of the next step to attempt.
        rejected: scalar bool array, whether the last attempt from here was rejected.
        nfe: scalar int array, derivative evaluations so far.
    """

    t: Any
    y: State
    f: State
    h: Any
    rejected: Any
    nfe: Any


def _rms(parts: State) -> Any:
    xp = namespace(parts[0])
    total = sum(xp.sum(part * part) for part in parts)
    return xp.sqrt(total / sum(_size(part) for part in parts))


def _size(part: Any) -> int:
    size = 1
    for dim in part.shape:
        size *= dim
    return size


def _combine(y: State, h: Any, weights: tuple[float, ...], slopes: list[State]) -> State:
    """``y + h * sum(weights * slopes)``."""
    return tuple(
        part + h * sum(w * slope[n] for w, slope in zip(weights, slopes, strict=False) if w != 0.0)
        for n, part in enumerate(y)
    )


def rms_norm(rtol: float, atol: float) -> ErrorNorm:
    """SciPy's error norm, over all components of the state."""

    def norm(error: State, y: State, y_new: State, t_new: Any) -> Any:
        del t_new
        xp = namespace(y[0])
        return _rms(
            tuple(e / (atol + xp.maximum(xp.abs(a), xp.abs(b)) * rtol) for e, a, b in zip(error, y, y_new, strict=True))
        )

    return norm


def start(
    fun: Derivative, t0: Any, y0: State, t1: float, rtol: float, atol: float, first_step: float | None = None
) -> SolverState:
    """The state at ``t0`` with the first step size of Hairer, Norsett and Wanner (two evaluations).

    Args:
        fun: ``fun(t, y) -> dy/dt``, tuples of arrays like ``y0``.
        t0: scalar array of the library of ``y0``, the start.
        y0: the state at ``t0``.
        t1: the end; may be smaller than ``t0``.
        rtol, atol: the tolerances of the error norm.
        first_step: the first step size instead, > 0 (one evaluation).
    """
    xp = namespace(y0[0])
    span = xp.abs(t1 - t0)
    direction = xp.sign(t1 - t0)
    f0 = fun(t0, y0)
    if first_step is not None:
        zero = xp.zeros_like(span)
        return SolverState(t0 + zero, y0, f0, zero + first_step, zero > 1, xp.astype(zero, xp.int32) + 1)
    scale = tuple(atol + xp.abs(part) * rtol for part in y0)
    d0 = _rms(tuple(part / s for part, s in zip(y0, scale, strict=True)))
    d1 = _rms(tuple(part / s for part, s in zip(f0, scale, strict=True)))
    tiny = xp.logical_or(d0 < 1e-5, d1 < 1e-5)
    h0 = xp.where(tiny, xp.full_like(d0, 1e-6), 0.01 * d0 / xp.where(tiny, xp.ones_like(d1), d1))
    h0 = xp.minimum(h0, span)
    f1 = fun(t0 + h0 * direction, _combine(y0, h0 * direction, (1.0,), [f0]))
    d2 = _rms(tuple((a - b) / s for a, b, s in zip(f1, f0, scale, strict=True))) / h0
    steepest = xp.maximum(d1, d2)
    flat = steepest <= 1e-15
    h1 = xp.where(flat, xp.maximum(xp.full_like(h0, 1e-6), h0 * 1e-3), (0.01 / xp.where(flat, h0, steepest)) ** 0.2)
    h = xp.minimum(xp.minimum(100 * h0, h1), span)
    zero = xp.zeros_like(d0)
    return SolverState(t0 + zero, y0, f0, h, zero > 1, xp.astype(zero, xp.int32) + 2)


def unfinished(state: SolverState, t1: float) -> Any:
    """Whether ``t1`` is still ahead (scalar bool array); a vanished step size ends the integration."""
    xp = namespace(state.t)
    return xp.logical_and(state.t != t1, state.h > 0)


def attempt(
    fun: Derivative, state: SolverState, t1: float, rtol: float, atol: float, error_norm: ErrorNorm | None = None
) -> SolverState:
    """One attempted step towards ``t1``: six evaluations, accepted or rejected; ``error_norm``: instead of SciPy's."""
    xp = namespace(state.y[0])
    t, y, f = state.t, state.y, state.f
    direction = xp.sign(t1 - t)
    span = xp.abs(t1 - t)
    last = state.h >= span
    h_abs = xp.where(last, span, state.h)
    t_new = xp.where(last, xp.full_like(t, t1), t + h_abs * direction)
    h = h_abs * direction

    slopes = [f]
    for c, row in zip(_C[1:], _A[1:], strict=True):
        slopes.append(fun(t + c * h, _combine(y, h, row, slopes)))
    y_new = _combine(y, h, _B, slopes)
    f_new = fun(t_new, y_new)
    slopes.append(f_new)
    zeros = tuple(xp.zeros_like(part) for part in y)
    error = _combine(zeros, h, _E, slopes)
    norm = (error_norm or rms_norm(rtol, atol))(error, y, y_new, t_new)

    accepted = norm < 1
    exact = norm == 0
    factor = _SAFETY * xp.where(exact, xp.ones_like(norm), norm) ** _EXPONENT
    grow = xp.where(exact, xp.full_like(norm, _MAX_FACTOR), xp.minimum(factor, xp.full_like(norm, _MAX_FACTOR)))
    grow = xp.where(state.rejected, xp.minimum(grow, xp.ones_like(grow)), grow)
    shrink = xp.maximum(factor, xp.full_like(norm, _MIN_FACTOR))
    h_next = h_abs * xp.where(accepted, grow, shrink)
    # A step that no longer moves t (or a NaN error) cannot succeed: a size of zero ends the loop and says so.
    stuck = xp.logical_or(xp.isnan(norm), xp.logical_and(t + h_next * direction == t, xp.logical_not(accepted)))
    return SolverState(
        t=xp.where(accepted, t_new, t),
        y=tuple(xp.where(accepted, new, old) for new, old in zip(y_new, y, strict=True)),
        f=tuple(xp.where(accepted, new, old) for new, old in zip(f_new, f, strict=True)),
        h=xp.where(stuck, xp.zeros_like(h_next), h_next),
        rejected=xp.logical_not(accepted),
        nfe=state.nfe + 6,
    )
