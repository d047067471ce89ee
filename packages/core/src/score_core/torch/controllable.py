r"""Controllable generation in PyTorch: inpainting, colourisation, class-conditional sampling, latent codes.

Inpainting and colourisation run the predictor-corrector loop and put the known part in after each of the two rules
(:mod:`score_core.controllable` has the formulas):

    x = start(prior)
    for i = 0 .. N-1:   n_steps times  x <- corrector(x, t_i);     x <- known part at t_i
                        x, x_mean <- predictor(x, t_i);            x, x_mean <- known part at t_i
    return x_mean (denoise) or x

Class-conditional sampling is the ordinary loop with another score. Encoding integrates the probability-flow ODE from
the data to the prior; :func:`score_core.torch.sampling.get_ode_sampler` is its inverse.

Loops run in inference mode and read nothing back from the device; only the classifier's gradient leaves that mode.
Images are ``[B, C, H, W]``: what is known comes in the network's range, results go out in the data range ``[0, 1]``
(unclipped).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from score_core.controllable import (
    ChannelCoupling,
    Measurement,
    Replacement,
    class_conditional_score,
    gray_measurement,
    measure,
    require_every_level,
)
from score_core.correctors import Corrector
from score_core.likelihood import probability_flow_drift
from score_core.noise_scales import time_grid
from score_core.parameterization import get_score_fn
from score_core.predictors import Predictor
from score_core.random import MeasurementNoise, NoiseSource
from score_core.sdes import SDE
from score_core.torch.ode import in_float32, integrate, integrate_scipy, solver_dtype
from score_core.torch.sampling import ApplyFn, Samples, get_pc_sampler

__all__ = ["Latents", "get_encoder", "get_pc_colorizer", "get_pc_conditional_sampler", "get_pc_inpainter"]


class Latents(NamedTuple):
    """What an encoder returns: the codes ``z`` ``[B, C, H, W]`` and the number ``nfe`` of function evaluations."""

    z: Tensor
    nfe: Any


def get_pc_inpainter(
    sde: SDE,
    apply_fn: ApplyFn,
    predictor: type[Predictor],
    corrector: type[Corrector],
    *,
    coupling: ChannelCoupling | None = None,
    **options: Any,
) -> Callable[[Any, MeasurementNoise, Tensor, Tensor], Samples]:
    """Builds a sampler of images whose pixels are known where a mask is 1.

    Arguments:
        sde, apply_fn, predictor, corrector: as for :func:`score_core.torch.sampling.get_pc_sampler`.
        coupling: the mask marks coordinates that mix the channels (made with ``axis=1``); None: it marks the channels
            themselves.
        options: ``snr`` and, if they differ from these: ``n_steps=1``, ``probability_flow=False``,
            ``continuous=True``, ``denoise=True``, ``eps=1e-3``, ``inverse_scaler``, ``corrector_norm="batch"``, all as
            there; ``noise_consistent=False``, see :class:`score_core.controllable.Replacement`.

    Returns:
        ``sampler(params, noise, image [B, C, H, W], mask) -> Samples``. The image is in the network's range; what it
        holds where it is unknown has no influence. For masks see :func:`score_core.controllable.measure`.

    Raises:
        ValueError: the predictor is a few-step rule, which does not visit the SDE's own noise levels.
    """
    sample = _get_sampler(sde, apply_fn, predictor, corrector, **options)

    def sampler(params: Any, noise: MeasurementNoise, image: Tensor, mask: Tensor) -> Samples:
        return sample(params, noise, measure(image, mask, coupling))

    return sampler


def get_pc_colorizer(
    sde: SDE, apply_fn: ApplyFn, predictor: type[Predictor], corrector: type[Corrector], **options: Any
) -> Callable[[Any, MeasurementNoise, Tensor], Samples]:
    """Builds a sampler of colour images whose grey value is known.

    Arguments:
        sde, apply_fn, predictor, corrector, options: as for :func:`get_pc_inpainter`.

    Returns:
        ``sampler(params, noise, gray [B, 3, H, W]) -> Samples``; the three channels of ``gray`` are equal, in the
        network's range.

    Raises:
        ValueError: as :func:`get_pc_inpainter`.
    """
    sample = _get_sampler(sde, apply_fn, predictor, corrector, **options)

    def sampler(params: Any, noise: MeasurementNoise, gray: Tensor) -> Samples:
        return sample(params, noise, gray_measurement(gray, axis=1))

    return sampler


def _get_sampler(
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
    noise_consistent: bool = False,
) -> Callable[[Any, MeasurementNoise, Measurement], Samples]:
    require_every_level(predictor)
    grid = time_grid(sde.N, T=sde.T, eps=eps)

    @torch.inference_mode()
    def run(params: Any, noise: MeasurementNoise, measurement: Measurement) -> Tensor:
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), continuous)
        predict = predictor(sde, score_fn, probability_flow)
        correct = corrector(sde, score_fn, snr, norm=corrector_norm)  # type: ignore[arg-type]
        replace = Replacement(sde, measurement, noise_consistent)
        carry, z = noise.prior()
        prior = sde.prior_sampling(z)
        if noise_consistent:
            carry, z = noise.measurement(carry, 0)
        x = x_mean = replace.start(prior, z)
        times = torch.as_tensor(grid, dtype=torch.float32, device=x.device)[:, None].expand(-1, x.shape[0])
        for i, t in enumerate(times):
            carry = noise.begin(carry, i)
            for k in range(n_steps if correct.stochastic else 0):
                carry, z = noise.corrector(carry, i, k)
                x = correct.step(x, t, z)[0]
            carry, z = noise.measurement(carry, 2 * i + 1)
            x, _ = replace.update(x, x, t, z)
            z = None
            if predict.stochastic:
                carry, z = noise.predictor(carry, i)
            x, x_mean = predict.update(x, t, z)
            carry, z = noise.measurement(carry, 2 * i + 2)
            x, x_mean = replace.update(x, x_mean, t, z)
        return inverse_scaler(x_mean if denoise else x)

    def sampler(params: Any, noise: MeasurementNoise, measurement: Measurement) -> Samples:
        # A copy, since what was made in inference mode may not be trained on.
        images = run(params, noise, measurement).clone()
        # parity: counted as if both rules evaluated the network, even when one of them is "none"
        return Samples(images, sde.N * (n_steps + 1))

    return sampler


def get_pc_conditional_sampler(
    sde: SDE,
    apply_fn: ApplyFn,
    gradient_fn: Callable[[Any, Tensor, Tensor, Tensor], Tensor],
    predictor: Any,
    corrector: type[Corrector],
    **options: Any,
) -> Callable[[Any, NoiseSource, Any, Tensor], Samples]:
    """Builds a sampler of images of given classes, led by the gradient of a classifier of noisy images.

    Arguments:
        sde, apply_fn, predictor, corrector: as for :func:`score_core.torch.sampling.get_pc_sampler`.
        gradient_fn: ``gradient_fn(classifier_params, x [B, C, H, W], std [B], labels [B])``, the gradient of
            log p(label | x) with respect to ``x``, which is in the network's range.
        options: those of :func:`score_core.torch.sampling.get_pc_sampler`.

    Returns:
        ``sampler(params, noise, classifier_params, labels [B]) -> Samples``, the labels integers.
    """

    def sampler(params: Any, noise: NoiseSource, classifier_params: Any, labels: Tensor) -> Samples:
        def gradient(x: Tensor, std: Tensor, labels: Tensor) -> Tensor:
            # The loop is in inference mode, whose tensors a gradient cannot pass: copies of them can.
            with torch.inference_mode(False):
                return gradient_fn(classifier_params, x.clone(), std.clone(), labels.clone())

        def conditional(rule: Any) -> Any:
            """The rule, driven by the conditional score."""

            class Conditional(rule):
                def __init__(self, sde: SDE, score_fn: Any, *rest: Any, **named: Any) -> None:
                    super().__init__(sde, class_conditional_score(score_fn, sde, gradient, labels), *rest, **named)

            return Conditional

        return get_pc_sampler(sde, apply_fn, conditional(predictor), conditional(corrector), **options)(params, noise)

    return sampler


def get_encoder(
    sde: SDE,
    apply_fn: ApplyFn,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    eps: float = 1e-3,
    solver: str = "device",
) -> Callable[[Any, Tensor], Latents]:
    """Builds the map from images to latent codes, by the probability-flow ODE (Song et al. 2021, section 4.3).

    Arguments:
        sde, apply_fn: as for :func:`score_core.torch.sampling.get_ode_sampler`, which decodes.
        rtol, atol: tolerances; one error norm over the whole batch.
        eps: the time of the data; take that of the decoder.
        solver: ``"device"`` or ``"scipy"``.

    Returns:
        ``encoder(params, x [B, C, H, W]) -> Latents``, ``x`` in the network's range.

    Raises:
        ValueError: another solver.
    """
    if solver not in ("device", "scipy"):
        raise ValueError(f"solver is {solver!r}; it must be 'device' or 'scipy'")

    def derivative(params: Any, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = y
        # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)
        return (probability_flow_drift(sde, score_fn)(x, t.expand(x.shape[0])),)

    @torch.no_grad()
    def encoder(params: Any, x: Tensor) -> Latents:
        options: dict[str, Any] = {"rtol": rtol, "atol": atol}
        if solver == "scipy":
            (z,), nfe = integrate_scipy(derivative, params, (x,), eps, sde.T, **options)
        else:
            y0 = (x.to(solver_dtype(x.device)),)
            (z,), nfe = integrate(in_float32(derivative), params, y0, eps, sde.T, **options)
        return Latents(z.to(torch.float32), nfe)

    return encoder
