"""Samplers in JAX: the predictor-corrector loop and the probability-flow ODE.

Predictor-corrector (Song et al. 2021, Algorithm 1), with ``t_i`` from ``T`` down to ``eps``:

    x ~ prior
    for i = 0 .. N-1:   n_steps times  x <- corrector(x, t_i);      x, x_mean <- predictor(x, t_i)
    return x_mean (denoise) or x

A sampler is a pure function of the parameters and a noise source; the loop runs inside one ``lax.scan``, so nothing
leaves the device before the end. Images are ``[B, H, W, C]``; results are in the data range ``[0, 1]`` (unclipped).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from score_core.correctors import Corrector
from score_core.jax.ode import default_loop, integrate, integrate_scipy
from score_core.likelihood import probability_flow_drift
from score_core.noise_scales import time_grid
from score_core.parameterization import get_score_fn
from score_core.predictors import Predictor, ReverseDiffusionPredictor
from score_core.random import NoiseSource
from score_core.sdes import SDE

__all__ = ["ApplyFn", "Samples", "Trajectory", "get_ode_sampler", "get_pc_sampler"]

ApplyFn = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""``apply_fn(params, x [B, H, W, C], labels [B]) -> [B, H, W, C]``, the network in evaluation mode."""


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
    predictor: type[Predictor],
    corrector: type[Corrector],
    *,
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = True,
    denoise: bool = True,
    eps: float = 1e-3,
    inverse_scaler: Callable[[Any], Any] = lambda x: x,
    corrector_norm: str = "batch",
    trajectory: Trajectory | None = None,
) -> Callable[[Any, NoiseSource], Samples]:
    """Builds the predictor-corrector sampler.

    Args:
        sde: the forward SDE.
        apply_fn: the network.
        predictor, corrector: rule classes of :mod:`score_core.predictors` and :mod:`score_core.correctors`.
        snr: the corrector's signal-to-noise ratio.
        n_steps: corrector iterations per noise level.
        probability_flow: the predictor solves the ODE instead of the reverse SDE.
        continuous: the network was trained with continuous time.
        denoise: return the mean of the last update (no noise added).
        eps: the time at which the loop ends.
        inverse_scaler: model range to data range.
        corrector_norm: ``"batch"`` (the original: step sizes from norms averaged over the batch) or ``"sample"``.
        trajectory: keep intermediate states as well.

    Returns:
        ``sampler(params, noise) -> Samples``, to be wrapped in ``jax.jit`` by the caller.
    """

    def sampler(params: Any, noise: NoiseSource) -> Samples:
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), continuous)
        predict = predictor(sde, score_fn, probability_flow)
        correct = corrector(sde, score_fn, snr, norm=corrector_norm)
        carry, z = noise.prior()
        x = sde.prior_sampling(z)
        times = jnp.asarray(time_grid(sde.N, T=sde.T, eps=eps))

        def step(state: tuple[Any, jax.Array, jax.Array], i: jax.Array) -> tuple[Any, jax.Array | None]:
            carry, x, _ = state
            t = jnp.full((x.shape[0],), times[i])
            carry, x = iterate_corrector(carry, x, t, i)
            carry, z = noise.predictor(carry, i)
            x, x_mean = predict.update(x, t, z)
            return (carry, x, x_mean), None

        def iterate_corrector(carry: Any, x: jax.Array, t: jax.Array, i: jax.Array) -> tuple[Any, jax.Array]:
            carry = noise.begin(carry, i)
            if not correct.stochastic:
                return carry, x

            def iteration(k: Any, state: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
                carry, z = noise.corrector(state[0], i, k)
                return carry, correct.step(state[1], t, z)[0]

            if n_steps == 1:
                return iteration(0, (carry, x))
            return jax.lax.fori_loop(0, n_steps, iteration, (carry, x))

        state = (carry, x, x)
        frames = None
        if trajectory is None:
            state, _ = jax.lax.scan(step, state, jnp.arange(sde.N))
        else:
            state, frames = _scan_with_frames(step, state, sde.N, trajectory.n_frames, denoise)
            frames = inverse_scaler(frames)
        _, x, x_mean = state
        # parity: counted as if both rules evaluated the network, even when one of them is "none"
        return Samples(inverse_scaler(x_mean if denoise else x), sde.N * (n_steps + 1), frames)

    return sampler


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
