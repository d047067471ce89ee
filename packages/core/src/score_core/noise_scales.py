"""Sequences of noise levels, time grids and Langevin step sizes, as tables on the host.

Geometric levels     sigma_i = sigma_min (sigma_max / sigma_min)^(i / (N - 1))
Linear schedule      beta_i = (beta_min + (beta_max - beta_min) i / (N - 1)) / N,  i = 0 ... N-1
Times of a sampler   t_0 = T > ... > t_{N-1} = eps, equally spaced
Step sizes           alpha_i = step_lr (sigma_i / sigma_{L-1})^2, sigma_{L-1} the smallest level
"""

from typing import Any

import numpy as np

from score_core import _float32
from score_core.errors import UsageError

__all__ = [
    "annealed_step_sizes",
    "ddpm_params",
    "discrete_sigmas",
    "langevin_sigmas",
    "linear_betas",
    "model_sigmas",
    "time_grid",
]

DDPM_TIMESTEPS = 1000
"""Length of the tables of :func:`ddpm_params`, whatever ``num_scales`` is."""


def model_sigmas(sigma_min: float, sigma_max: float, num_scales: int) -> np.ndarray:
    """The noise levels a network is conditioned on: float32 ``[num_scales]``, **descending** (index 0 the largest).

    Arguments:
        sigma_min, sigma_max: smallest and largest standard deviation, in units of the data, > 0.
        num_scales: how many levels.
    """
    # parity: logarithms, spacing and exponential all in float32, so the first level may miss sigma_max by an ulp.
    return _float32.exp(_float32.linspace(np.log(np.float32(sigma_max)), np.log(np.float32(sigma_min)), num_scales))


def langevin_sigmas(
    sigma_begin: float, sigma_end: float, num_classes: int, sigma_dist: str = "geometric"
) -> np.ndarray:
    """The noise levels of annealed Langevin dynamics: float64 ``[num_classes]``, **descending** (index 0 the largest).

    The PyTorch program of score_sde computes and stores its levels so, too.

    Arguments:
        sigma_begin, sigma_end: largest and smallest standard deviation, in units of the data, > 0.
        num_classes: how many levels; one level is ``sigma_begin``.
        sigma_dist: ``geometric`` (NCSN; equal ratios) or ``uniform`` (equal differences).

    Raises:
        UsageError: an unknown ``sigma_dist``, levels that are not positive, or none at all.
    """
    if not (sigma_begin > 0 and sigma_end > 0 and num_classes >= 1):
        raise UsageError(
            f"noise levels from {sigma_begin} to {sigma_end}, {num_classes} of them, cannot be made: "
            "model.sigma_begin and model.sigma_end must be positive and model.num_classes at least 1"
        )
    match sigma_dist:
        case "geometric":
            return np.exp(np.linspace(np.log(sigma_begin), np.log(sigma_end), num_classes))
        case "uniform":
            return np.linspace(sigma_begin, sigma_end, num_classes)
    raise UsageError(f"unknown model.sigma_dist {sigma_dist!r}; known: geometric, uniform")


def discrete_sigmas(sigma_min: float, sigma_max: float, N: int) -> np.ndarray:
    """The noise levels of the discretised VE SDE: float32 ``[N]``, **ascending**.

    Arguments:
        sigma_min, sigma_max: smallest and largest standard deviation, in units of the data, > 0.
        N: number of discretisation steps.
    """
    # parity: spacing in float64, exponential in float32 (unlike model_sigmas).
    return _float32.exp(np.linspace(np.log(sigma_min), np.log(sigma_max), N).astype(np.float32))


def linear_betas(beta_min: float, beta_max: float, N: int) -> np.ndarray:
    """The variances beta_i of the discretised VP SDE (DDPM's linear schedule): float32 ``[N]``, ascending.

    Arguments:
        beta_min, beta_max: beta(0) and beta(T) of the SDE; the table runs from ``beta_min / N`` to ``beta_max / N``.
        N: number of discretisation steps.
    """
    return _float32.linspace(beta_min / N, beta_max / N, N)


def time_grid(N: int, *, T: float = 1.0, eps: float) -> np.ndarray:
    """The times a predictor-corrector sampler visits: float32 ``[N]`` from ``T`` down to ``eps``, both included."""
    return _float32.linspace(T, eps, N)


def ddpm_params(beta_min: float, beta_max: float, num_scales: int) -> dict[str, Any]:
    """The float64 tables of the original DDPM code.

    Arguments:
        beta_min, beta_max: beta(0) and beta(T) of the VP SDE.
        num_scales: the betas run from ``beta_min / num_scales`` to ``beta_max / num_scales``.

    Returns:
        The tables ``betas``, ``alphas``, ``alphas_cumprod``, ``sqrt_alphas_cumprod`` and ``sqrt_1m_alphas_cumprod``
        (float64 ``[1000]``); ``beta_min`` and ``beta_max``, the first and last beta times 999;
        ``num_diffusion_timesteps``, 1000.
    """
    first, last = beta_min / num_scales, beta_max / num_scales
    # parity: always 1000 betas, and end points times 999, although the SDE's tables use num_scales.
    betas = np.linspace(first, last, DDPM_TIMESTEPS, dtype=np.float64)
    alphas = 1.0 - betas
    alphas_cumprod = np.cumprod(alphas)
    return {
        "betas": betas,
        "alphas": alphas,
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alphas_cumprod": np.sqrt(alphas_cumprod),
        "sqrt_1m_alphas_cumprod": np.sqrt(1.0 - alphas_cumprod),
        "beta_min": first * (DDPM_TIMESTEPS - 1),
        "beta_max": last * (DDPM_TIMESTEPS - 1),
        "num_diffusion_timesteps": DDPM_TIMESTEPS,
    }


def annealed_step_sizes(sigmas: np.ndarray, step_lr: float) -> np.ndarray:
    """Step sizes of annealed Langevin dynamics, one a noise level (Song & Ermon 2019, Algorithm 1): float64 ``[L]``.

    Arguments:
        sigmas: noise levels ``[L]``, descending, float32 or float64.
        step_lr: step size at the smallest level.
    """
    # parity: the ratio keeps the levels' own precision, square and product are float64.
    return step_lr * (sigmas / sigmas[-1]).astype(np.float64) ** 2
