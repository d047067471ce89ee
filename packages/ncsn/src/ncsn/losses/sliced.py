r"""Sliced score matching (Song, Garg, Shi & Ermon, arXiv:1905.07088; NCSN, section 2.1 and appendix B.4).

With projections :math:`v` of unit covariance (or, where said, of unit length)

.. math:: J = E\, v^T \nabla s(x)\, v + \tfrac12\, (v^T s(x))^2

and variance reduced, with the second term's expectation over :math:`v` taken by hand, :math:`\tfrac12 \|s(x)\|^2`. The
directional derivative :math:`v^T \nabla s\, v` costs one more backward pass whatever the dimension.
"""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ncsn.losses.functions import EnergyFn, NoisyScoreFn, ScoreFn, add_level_noise, score_of_energy

__all__ = [
    "NoiseType",
    "anneal_sliced_score_estimation_vr",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]

NoiseType: TypeAlias = Literal["radermacher", "sphere", "gaussian"]
Losses: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""The loss, its part of the score's square and its part of the derivative: scalars."""


def _derivative(score_fn: ScoreFn, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r"""At ``x``, cut off from what made it: the scores s, and :math:`v^T s` differentiated by x."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        s = score_fn(x)
        (derivative,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
    return s, derivative


def _repeated(samples: Tensor, n_particles: int) -> Tensor:
    """The whole batch ``n_particles`` times, one after the other."""
    return samples.repeat(n_particles, *[1] * (samples.ndim - 1))


def _terms(s: Tensor, derivative: Tensor, v: Tensor, *, reduced: bool) -> tuple[Tensor, Tensor]:
    """The two terms of the loss, summed over the last axis."""
    square = s.square().sum(-1) if reduced else (s * v).sum(-1).square()
    return 0.5 * square, (v * derivative).sum(-1)


def _averaged(first: Tensor, second: Tensor) -> Losses:
    return (first + second).mean(), first.mean(), second.mean()


def _sliced(score_fn: ScoreFn, samples: Tensor, n_particles: int, vectors: Tensor | None, *, reduced: bool) -> Losses:
    """The losses of vectors ``[B, d]``, with normal projections if ``reduced``, else of unit length."""
    x = _repeated(samples, n_particles)
    v = torch.randn_like(x) if vectors is None else vectors
    if not reduced:
        # parity: of length one, not sqrt(d), which makes both terms smaller by d.
        v = v / v.norm(dim=-1, keepdim=True)
    s, derivative = _derivative(score_fn, x, v)
    return _averaged(*_terms(s, derivative, v, reduced=reduced))


def sliced_score_matching(
    energy_net: EnergyFn, samples: Tensor, n_particles: int = 1, *, vectors: Tensor | None = None
) -> Losses:
    """Sliced score matching of an energy with projections of length one.

    Arguments:
        energy_net: the energy.
        samples: ``[B, d]``.
        n_particles: projections per sample.
        vectors: standard normal numbers ``[n_particles B, d]``, the whole batch once a particle; None: drawn.

    Returns: the loss and its two terms.
    """
    return _sliced(score_of_energy(energy_net), samples, n_particles, vectors, reduced=False)


def sliced_score_matching_vr(
    energy_net: EnergyFn, samples: Tensor, n_particles: int = 1, *, vectors: Tensor | None = None
) -> Losses:
    """Sliced score matching of an energy, variance reduced, with normal projections; else as the one before."""
    return _sliced(score_of_energy(energy_net), samples, n_particles, vectors, reduced=True)


def sliced_score_estimation(
    score_net: ScoreFn, samples: Tensor, n_particles: int = 1, *, vectors: Tensor | None = None
) -> Losses:
    """Sliced score matching of a score ``[B, d] -> [B, d]`` with projections of length one; else as of an energy."""
    return _sliced(score_net, samples, n_particles, vectors, reduced=False)


def sliced_score_estimation_vr(
    score_net: ScoreFn, samples: Tensor, n_particles: int = 1, *, vectors: Tensor | None = None
) -> Losses:
    """Sliced score matching of a score, variance reduced, with normal projections.

    Arguments:
        score_net: the score.
        samples: ``[B, ...]``, vectors or images.
        n_particles: projections per sample.
        vectors: standard normal numbers ``[n_particles B, ...]``, the whole batch once a particle; None: drawn.

    Returns: the loss and its two terms.
    """
    x = _repeated(samples, n_particles)
    v = torch.randn_like(x) if vectors is None else vectors
    s, derivative = _derivative(score_net, x, v)
    return _averaged(*_terms(s.flatten(1), derivative.flatten(1), v.flatten(1), reduced=True))


def anneal_sliced_score_estimation_vr(
    scorenet: NoisyScoreFn,
    samples: Tensor,
    labels: Tensor,
    sigmas: Tensor,
    n_particles: int = 1,
    *,
    noise: Tensor | None = None,
    vectors: Tensor | None = None,
) -> Tensor:
    """Sliced score matching over noise levels, variance reduced, weighted by sigma^2.

    Arguments:
        scorenet: the score by label.
        samples: ``[B, ...]``; no gradient flows into them.
        labels: int64 ``[B]``, each sample's noise level.
        sigmas: ``[K]``, the levels.
        n_particles: projections per sample.
        noise: standard normal numbers of the shape of ``samples``; None: drawn, before the projections.
        vectors: standard normal projections ``[n_particles B, ...]``; None: drawn.

    Returns: the loss, a scalar.
    """
    noisy, _ = add_level_noise(samples, labels, sigmas, noise)
    x, y = _repeated(noisy, n_particles), labels.repeat(n_particles)
    v = torch.randn_like(x) if vectors is None else vectors
    s, derivative = _derivative(lambda x: scorenet(x, y), x, v)
    first, second = _terms(s.flatten(1), derivative.flatten(1), v.flatten(1), reduced=True)
    losses = (first + second).reshape(n_particles, -1).mean(0)
    return (losses * sigmas[labels] ** 2).mean()


def _projections(samples: Tensor, noise_type: NoiseType) -> Tensor:
    v = torch.randn_like(samples)
    match noise_type:
        case "gaussian":
            return v
        case "radermacher":
            return v.sign()
        case "sphere":
            return v / v.norm(dim=-1, keepdim=True) * samples.shape[-1] ** 0.5
    raise ValueError(f"unknown noise_type {noise_type!r}; known: radermacher, sphere, gaussian")


def _one_projection(
    energy_net: EnergyFn, samples: Tensor, v: Tensor, detach: bool, *, reduced: bool
) -> tuple[Tensor, Tensor, Tensor]:
    s, derivative = _derivative(score_of_energy(energy_net), samples, v)
    loss, _, _ = _averaged(*_terms(s, derivative, v, reduced=reduced))
    return (loss.detach() if detach else loss), s, derivative


def single_sliced_score_matching(
    energy_net: EnergyFn,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: NoiseType = "radermacher",
) -> tuple[Tensor, Tensor, Tensor]:
    """Sliced score matching of an energy with one projection per sample.

    Arguments:
        energy_net: the energy.
        samples: ``[B, d]``.
        noise: the projections ``[B, d]``, taken as they are; None: drawn.
        detach: return a loss that carries no gradient.
        noise_type: signs (Rademacher), normalised to length sqrt(d), or normal.

    Returns: the loss (a scalar), the scores ``[B, d]`` and the derivatives of ``v^T s`` ``[B, d]``.

    Raises: ValueError for an unknown ``noise_type``.
    """
    v = _projections(samples, noise_type) if noise is None else noise
    return _one_projection(energy_net, samples, v, detach, reduced=False)


def partial_sliced_score_matching(
    energy_net: EnergyFn,
    samples: Tensor,
    noise: Tensor | None = None,
    detach: bool = False,
    noise_type: Literal["radermacher", "gaussian"] = "radermacher",
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`single_sliced_score_matching`, variance reduced; ``sphere`` is unknown here."""
    if noise is None and noise_type == "sphere":
        raise ValueError("unknown noise_type 'sphere'; known: radermacher, gaussian")
    v = _projections(samples, noise_type) if noise is None else noise
    return _one_projection(energy_net, samples, v, detach, reduced=True)
