"""Samplers in JAX: the predictor-corrector loop and the probability-flow ODE.

Predictor-corrector (Song et al. 2021, Algorithm 1), with ``t_i`` from ``T`` down to ``eps``:

    x ~ prior
    for i = 0 .. N-1:   n_steps times  x <- corrector(x, t_i);      x, x_mean <- predictor(x, t_i)
    return x_mean (denoise) or x

Few-step rules (:mod:`score_core.solvers`) take the predictor's place on ``n`` times of their own, t_0 = T > t_1 > ...:

    for each of the first n times:   corrector as above;      x <- rule(x, t_i, t_{i+1})
    denoise:      t_{n-1} = eps, where the last update is the mean of the data, D(x, eps), in the place of the rule
    otherwise:    t_n = eps, n + 1 times, the last of which the rule only reaches

A sampler is a pure function of the parameters and a noise source; the loop runs inside one ``lax.scan``, so nothing
leaves the device before the end. Images are ``[B, H, W, C]``; results are in the data range ``[0, 1]`` (unclipped).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from score_core.correctors import Corrector
from score_core.jax.ode import default_loop, integrate, integrate_scipy
from score_core.likelihood import probability_flow_drift
from score_core.parameterization import get_score_fn
from score_core.predictors import Predictor, ReverseDiffusionPredictor
from score_core.random import NoiseSource
from score_core.sdes import SDE
from score_core.solvers.few_step import FewStepRule
from score_core.solvers.plan import plan_loop

__all__ = ["ApplyFn", "Samples", "Trajectory", "get_ode_sampler", "get_pc_sampler"]

ApplyFn = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""``apply_fn(params, x [B, H, W, C], labels [B]) -> [B, H, W, C]``, the network in evaluation mode."""

State: TypeAlias = tuple[Any, jax.Array, jax.Array, Any]
"""Between steps: the noise source's carry, x, its mean without the last noise, a few-step rule's memory."""


class Samples(NamedTuple):
    """What a sampler returns.

    Attributes:
        images: ``[B, H, W, C]`` in the data range.
        nfe: function evaluations as the original counts them.
        trajectory: ``[n_frames, B, H, W, C]`` if asked for, otherwise None.
    """

    images: jax.Array
    nfe: Any
    trajectory: Any = None


class Trajectory(NamedTuple):
    """Which intermediate states to keep: ``n_frames`` of them, evenly spaced, the last step included."""

    n_frames: int


def get_pc_sampler(
    sde: SDE,
    apply_fn: ApplyFn,
    predictor: type[Predictor] | type[FewStepRule],
    corrector: type[Corrector],
    *,
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = True,
    denoise: bool = True,
    eps: float = 1e-3,
    inverse_scaler: Callable[[Any], Any] = lambda x: x,
    corrector_norm: Literal["batch", "sample"] = "batch",
    trajectory: Trajectory | None = None,
    steps: int = 0,
    spacing: str = "",
    eta: float = 0.0,
) -> Callable[[Any, NoiseSource], Samples]:
    """Builds the predictor-corrector sampler.

    Args:
        sde: the forward SDE.
        apply_fn: the network.
        predictor, corrector: rule classes of :mod:`score_core.predictors` (or a few-step rule) and
            :mod:`score_core.correctors`.
        snr: the corrector's signal-to-noise ratio.
        n_steps: corrector iterations per noise level.
        probability_flow: the predictor solves the ODE instead of the reverse SDE.
        continuous: the network was trained with continuous time.
        denoise: return the mean of the last update (no noise added).
        eps: the time at which the loop ends.
        inverse_scaler: model range to data range.
        corrector_norm: ``"batch"`` (the original: step sizes from norms averaged over the batch) or ``"sample"``.
        trajectory: keep intermediate states as well.
        steps: few-step rules only: how many noise levels, 0 for ``sde.N``.
        spacing: few-step rules only: see :func:`score_core.solvers.few_step.few_step_times`; empty for the rule's own.
        eta: few-step rules only: fresh noise in a step, 0 to 1 (DDIM).

    Returns:
        ``sampler(params, noise) -> Samples``, to be wrapped in ``jax.jit`` by the caller.

    Raises:
        ValueError: the options do not fit the predictor or the network; the message says which and what to set.
    """
    few_step, make_rule, grid, updates, nfe = plan_loop(
        sde,
        predictor,
        corrector,
        snr=snr,
        n_steps=n_steps,
        corrector_norm=corrector_norm,
        probability_flow=probability_flow,
        continuous=continuous,
        denoise=denoise,
        eps=eps,
        steps=steps,
        spacing=spacing,
        eta=eta,
    )

    def sampler(params: Any, noise: NoiseSource) -> Samples:
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), continuous)
        rule: Any = make_rule(score_fn)
        correct = corrector(sde, score_fn, snr, norm=corrector_norm)
        carry, z = noise.prior()
        x = sde.prior_sampling(z)
        times = jnp.asarray(grid)

        def step(state: State, i: jax.Array) -> tuple[State, None]:
            carry, x, _, memory = state
            t = time(x, i)
            carry, x = iterate_corrector(carry, x, t, i)
            z = None
            if not few_step or rule.stochastic:
                carry, z = noise.predictor(carry, i)
            if few_step:
                x, memory = rule.step(x, t, time(x, i + 1), memory, z)
                x_mean = x
            else:
                x, x_mean = rule.update(x, t, z)
            return (carry, x, x_mean, memory), None

        def time(x: jax.Array, i: Any) -> jax.Array:
            return jnp.full((x.shape[0],), times[i])

        def iterate_corrector(carry: Any, x: jax.Array, t: jax.Array, i: Any) -> tuple[Any, jax.Array]:
            return correct_repeatedly(correct, noise, n_steps, noise.begin(carry, i), x, t, i)

        state = (carry, x, x, rule.init(x) if few_step else ())
        frames = None
        if trajectory is None:
            state, _ = jax.lax.scan(step, state, jnp.arange(updates))
        else:
            state, frames = _scan_with_frames(step, state, updates, trajectory.n_frames, denoise)
        carry, x, x_mean, _ = state
        if few_step and denoise:
            _, x = iterate_corrector(carry, x, time(x, updates), updates)
            x_mean = rule.predict(x, time(x, updates))[1]
            frames = None if frames is None else frames.at[-1].set(x_mean)
        frames = None if frames is None else inverse_scaler(frames)
        return Samples(inverse_scaler(x_mean if denoise else x), nfe, frames)

    return sampler


def correct_repeatedly(
    correct: Corrector, noise: NoiseSource, n_steps: int, carry: Any, x: jax.Array, t: jax.Array, i: Any
) -> tuple[Any, jax.Array]:
    """``n_steps`` corrector iterations of step ``i`` at the times ``t`` ``[B]``; the source's carry and the new x."""
    if not correct.stochastic:
        return carry, x

    def iteration(k: Any, state: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        carry, z = noise.corrector(state[0], i, k)
        return carry, correct.step(state[1], t, z)[0]

    if n_steps == 1:
        return iteration(0, (carry, x))
    return jax.lax.fori_loop(0, n_steps, iteration, (carry, x))


def _scan_with_frames(step: Any, state: Any, n: int, n_frames: int, denoise: bool) -> tuple[Any, jax.Array]:
    """Scans over all steps and keeps ``n_frames`` states: memory grows with the frames, not with the steps."""
    ends = [round((f + 1) * n / n_frames) for f in range(n_frames)]
    frames = []
    begin = 0
    for end in ends:
        state, _ = jax.lax.scan(step, state, jnp.arange(begin, end))
        frames.append(state[2] if denoise else state[1])
        begin = end
    return state, jnp.stack(frames)


def get_ode_sampler(
    sde: SDE,
    apply_fn: ApplyFn,
    *,
    denoise: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    eps: float = 1e-3,
    inverse_scaler: Callable[[Any], Any] = lambda x: x,
    solver: str = "device",
) -> Callable[[Any, jax.Array], Samples]:
    """Builds the black-box ODE sampler (Song et al. 2021, section 4.3): RK45 on the probability-flow ODE.

    Args:
        sde, apply_fn, eps, inverse_scaler: as for :func:`get_pc_sampler`.
        denoise: finish with one noise-free reverse-diffusion update at ``eps`` (not counted in ``nfe``).
        rtol, atol: tolerances; one error norm over the whole batch.
        solver: ``"device"`` or ``"scipy"``.

    Returns:
        ``sampler(params, x_T [B, H, W, C]) -> Samples``; ``x_T`` is a sample of the prior (or an encoding).
    """
    if solver not in ("device", "scipy"):
        raise ValueError(f"solver is {solver!r}; it must be 'device' or 'scipy'")

    # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
    def score(params: Any) -> Callable[[Any, Any], Any]:
        return get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)

    def derivative(params: Any, t: jax.Array, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        (x,) = y
        return (probability_flow_drift(sde, score(params))(x, jnp.full((x.shape[0],), t)),)

    @jax.jit
    def finish(params: Any, x: jax.Array) -> jax.Array:
        if denoise:
            t = jnp.full((x.shape[0],), eps, jnp.float32)
            # parity: the last update uses the reverse SDE (full score), not the ODE
            _, x = ReverseDiffusionPredictor(sde, score(params)).update(x, t, jnp.zeros_like(x))
        return inverse_scaler(x)

    def sampler(params: Any, x_T: jax.Array) -> Samples:
        options: dict[str, Any] = {"rtol": rtol, "atol": atol}
        if solver == "scipy":
            (x,), nfe = integrate_scipy(derivative, params, (x_T,), sde.T, eps, **options)
        else:
            loop = default_loop(has_gradient=False)
            (x,), nfe = integrate(derivative, params, (x_T,), sde.T, eps, loop=loop, **options)
        return Samples(finish(params, x), nfe)

    return sampler
