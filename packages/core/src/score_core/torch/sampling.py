"""Samplers in PyTorch: the predictor-corrector loop and the probability-flow ODE.

Predictor-corrector (Song et al. 2021, Algorithm 1), with ``t_i`` from ``T`` down to ``eps``:

    x ~ prior
    for i = 0 .. N-1:   n_steps times  x <- corrector(x, t_i);      x, x_mean <- predictor(x, t_i)
    return x_mean (denoise) or x

Few-step rules (:mod:`score_core.solvers`) take the predictor's place on ``n`` times of their own, t_0 = T > t_1 > ...:

    for each of the first n times:   corrector as above;      x <- rule(x, t_i, t_{i+1})
    denoise:      t_{n-1} = eps, where the last update is the mean of the data, D(x, eps), in the place of the rule
    otherwise:    t_n = eps, n + 1 times, the last of which the rule only reaches

The loop reads nothing back from the device; it runs in inference mode or, compiled, without gradients. Images are
``[B, C, H, W]``; results are in the data range ``[0, 1]`` (unclipped).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from score_core.correctors import Corrector
from score_core.likelihood import probability_flow_drift
from score_core.parameterization import get_score_fn
from score_core.predictors import Predictor, ReverseDiffusionPredictor
from score_core.random import NoiseSource
from score_core.sdes import SDE
from score_core.solvers.few_step import FewStepRule
from score_core.solvers.plan import plan_loop
from score_core.torch.ode import in_float32, integrate, integrate_scipy, solver_dtype

__all__ = ["ApplyFn", "Samples", "Trajectory", "get_ode_sampler", "get_pc_sampler"]

ApplyFn = Callable[[Any, Tensor, Tensor], Tensor]
"""``apply_fn(params, x [B, C, H, W], labels [B]) -> [B, C, H, W]``, the network in evaluation mode
(:func:`score_core.torch.training.get_apply_fn`)."""


class Samples(NamedTuple):
    """What a sampler returns.

    Attributes:
        images: ``[B, C, H, W]`` in the data range.
        nfe: function evaluations as the original counts them.
        trajectory: ``[n_frames, B, C, H, W]`` if asked for, otherwise None.
    """

    images: Tensor
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
    batch_mean: Callable[[Tensor], Tensor] | None = None,
    trajectory: Trajectory | None = None,
    steps: int = 0,
    spacing: str = "",
    eta: float = 0.0,
    compiled: bool = False,
) -> Callable[[Any, NoiseSource], Samples]:
    """Builds the predictor-corrector sampler.

    Arguments:
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
        batch_mean: how norms ``[B]`` are averaged where the batch is spread over processes
            (:meth:`score_core.torch.parallel.Parallel.batch_mean`); None: over the tensor.
        trajectory: keep intermediate states as well.
        steps: few-step rules only: how many noise levels, 0 for ``sde.N``.
        spacing: few-step rules only: see :func:`score_core.solvers.few_step.few_step_times`; empty for the rule's own.
        eta: few-step rules only: fresh noise in a step, 0 to 1 (DDIM).
        compiled: run each rule through ``torch.compile``.

    Returns:
        ``sampler(params, noise) -> Samples``.

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

    def rule_of(params: Any) -> Any:
        return make_rule(get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), continuous))

    def correct(params: Any, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), continuous)
        return corrector(sde, score_fn, snr, norm=corrector_norm, batch_mean=batch_mean).step(x, t, z)[0]

    def predict(params: Any, x: Tensor, t: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        return rule_of(params).update(x, t, z)

    def move(params: Any, x: Tensor, t: Tensor, t_next: Tensor, memory: Any, z: Tensor | None) -> tuple[Tensor, Any]:
        return rule_of(params).step(x, t, t_next, memory, z)

    if compiled:
        compile_ = partial(torch.compile, dynamic=False)
        correct, predict, move = compile_(correct), compile_(predict), compile_(move)

    # torch.compile turns a rule's tables into tensors, whose guards do not hold in inference mode.
    @(torch.no_grad() if compiled else torch.inference_mode())
    def run(params: Any, noise: NoiseSource) -> tuple[Tensor, list[Tensor]]:
        carry, z = noise.prior()
        x = x_mean = sde.prior_sampling(z)
        rule = rule_of(params)
        times = torch.as_tensor(grid, dtype=torch.float32, device=x.device)[:, None].expand(-1, x.shape[0])

        def iterate_corrector(carry: Any, x: Tensor, i: int) -> tuple[Any, Tensor]:
            carry = noise.begin(carry, i)
            for k in range(n_steps if corrector.stochastic else 0):
                carry, z = noise.corrector(carry, i, k)
                x = correct(params, x, times[i], z)
            return carry, x

        memory = rule.init(x) if few_step else ()
        ends = _frame_ends(updates, trajectory)
        frames = [x] * ends.count(0)
        for i in range(updates):
            carry, x = iterate_corrector(carry, x, i)
            z = None
            if rule.stochastic:
                carry, z = noise.predictor(carry, i)
            if few_step:
                x, memory = move(params, x, times[i], times[i + 1], memory, z)
                x_mean = x
            else:
                x, x_mean = predict(params, x, times[i], z)
            frames += [x_mean if denoise else x] * ends.count(i + 1)
        if few_step and denoise:
            _, x = iterate_corrector(carry, x, updates)
            x_mean = rule.predict(x, times[updates])[1]
            frames[-1:] = [x_mean] * len(frames[-1:])
        return inverse_scaler(x_mean if denoise else x), frames

    def sampler(params: Any, noise: NoiseSource) -> Samples:
        images, frames = run(params, noise)
        # Copies, since what was made in inference mode may not be trained on.
        return Samples(images.clone(), nfe, inverse_scaler(torch.stack(frames)) if frames else None)

    return sampler


def _frame_ends(n: int, trajectory: Trajectory | None) -> list[int]:
    """After which of ``n`` updates a state is kept: memory grows with the frames, not with the steps."""
    count = trajectory.n_frames if trajectory else 0
    return [round((frame + 1) * n / count) for frame in range(count)]


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
    method: str = "RK45",
) -> Callable[[Any, Tensor], Samples]:
    """Builds the black-box ODE sampler (Song et al. 2021, section 4.3): RK45 on the probability-flow ODE.

    Arguments:
        sde, apply_fn, eps, inverse_scaler: as for :func:`get_pc_sampler`.
        denoise: finish with one noise-free reverse-diffusion update at ``eps`` (not counted in ``nfe``).
        rtol, atol: tolerances; one error norm over the whole batch.
        solver: ``"device"`` or ``"scipy"``.
        method: ``"RK45"``; with ``solver="scipy"`` any method of ``solve_ivp``.

    Returns:
        ``sampler(params, x_T [B, C, H, W]) -> Samples``; ``x_T`` is a sample of the prior (or an encoding).

    Raises:
        ValueError: for another solver, or another method on the device.
    """
    if solver not in ("device", "scipy"):
        raise ValueError(f"solver is {solver!r}; it must be 'device' or 'scipy'")
    if solver == "device" and method != "RK45":
        raise ValueError(f"method is {method!r}; on the device it must be 'RK45' (solver='scipy' has others)")

    # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
    def score(params: Any) -> Callable[[Any, Any], Any]:
        return get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)

    def derivative(params: Any, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = y
        return (probability_flow_drift(sde, score(params))(x, t.expand(x.shape[0])),)

    @torch.no_grad()
    def sampler(params: Any, x_T: Tensor) -> Samples:
        options: dict[str, Any] = {"rtol": rtol, "atol": atol}
        if solver == "scipy":
            (x,), nfe = integrate_scipy(derivative, params, (x_T,), sde.T, eps, method=method, **options)
        else:
            y0 = (x_T.to(solver_dtype(x_T.device)),)
            (x,), nfe = integrate(in_float32(derivative), params, y0, sde.T, eps, **options)
            x = x.to(torch.float32)
        if denoise:
            # parity: the last update uses the reverse SDE (full score), not the ODE
            t = x.new_full((x.shape[0],), eps)
            _, x = ReverseDiffusionPredictor(sde, score(params)).update(x, t, torch.zeros_like(x))
        return Samples(inverse_scaler(x), nfe)

    return sampler
