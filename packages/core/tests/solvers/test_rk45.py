"""RK45 with SciPy's controller: the same steps, the same number of evaluations, the same error behaviour."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from score_core.solvers import rk45


def integrate(fun, y0, t0, t1, rtol, atol):
    state = rk45.start(fun, np.asarray(t0), y0, t1, rtol, atol)
    while bool(rk45.unfinished(state, t1)):
        state = rk45.attempt(fun, state, t1, rtol, atol)
    return state


PROBLEMS = {
    "decay": (lambda t, y: -3 * y, [1.0, 2.0], 0.0, 2.0),
    "backwards": (lambda t, y: -3 * y + t, [1.0, -1.0], 1.0, 1e-5),
    "oscillator": (lambda t, y: np.array([y[1], -25 * y[0]]), [1.0, 0.0], 0.0, 3.0),
    "stiffening": (lambda t, y: y / (t + 1e-2), [0.1, 0.2], 0.0, 1.0),
    "rejections": (lambda t, y: np.array([np.sin(40 * t) * y[1], np.tanh(60 * (t - 0.5)) * 20]), [1.0, 0.3], 0.0, 1.0),
    "zero": (lambda t, y: 0 * y, [1.0, 2.0], 0.0, 1.0),
}


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_agrees_with_scipy_step_for_step(problem, tolerance):
    fun, y0, t0, t1 = PROBLEMS[problem]
    reference = solve_ivp(fun, (t0, t1), y0, rtol=tolerance, atol=tolerance, method="RK45")
    state = integrate(lambda t, y: (fun(t, y[0]),), (np.asarray(y0),), t0, t1, tolerance, tolerance)
    assert int(state.nfe) == reference.nfev
    np.testing.assert_allclose(state.y[0], reference.y[:, -1], rtol=1e-9, atol=1e-12)


def test_a_tuple_is_integrated_with_one_error_norm():
    joint = integrate(lambda t, y: (-3 * y[0],), (np.array([1.0, 2.0, 3.0]),), 0.0, 1.0, 1e-5, 1e-5)
    parts = integrate(
        lambda t, y: (-3 * y[0], -3 * y[1]), (np.array([1.0]), np.array([[2.0, 3.0]])), 0.0, 1.0, 1e-5, 1e-5
    )
    assert int(joint.nfe) == int(parts.nfe)
    np.testing.assert_allclose(np.concatenate([p.ravel() for p in parts.y]), joint.y[0], rtol=1e-13)


def test_a_derivative_that_is_not_finite_ends_the_integration_short_of_its_goal():
    def blow_up(t, y):
        return (np.where(t > 0.5, np.nan, 1.0) * y[0],)

    state = integrate(blow_up, (np.array([1.0]),), 0.0, 1.0, 1e-5, 1e-5)
    assert float(state.t) < 1.0
    assert float(state.h) == 0.0
