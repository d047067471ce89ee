"""Denoising score-matching objectives, one loss value a sample (Song et al. 2021, eqs. 1, 3 and 7).

Continuous   x_t = mean + std z,  z ~ N(0, I),  t ~ U(eps, T)
             |std score(x_t, t) + z|^2                           (weight std^2)
             g(t)^2 |score(x_t, t) + z / std|^2                  (likelihood weighting, Song et al. 2021b)
SMLD, VE     x = x_0 + sigma_i z:       sigma_i^2 |model(x, i) + z / sigma_i|^2,   sigma descending in the label i
DDPM, VP     x = sqrt(alpha_bar_i) x_0 + sqrt(1 - alpha_bar_i) z:   |model(x, i) - z|^2

|.|^2 stands for half the sum over the dimensions of a sample, or their mean where ``reduce_mean`` is set.
The functions receive times, labels and noise and never draw; averaging over batch and devices is the caller's.
"""

from score_core.arrays import Array, ScoreFn, batch_mul, dims_per_sample, per_sample, sum_dims, take
from score_core.parameterization import ModelFn
from score_core.sdes import SDE, VESDE, VPSDE

__all__ = ["ddpm_loss", "sample_times", "sde_loss", "smld_loss"]


def sample_times(u: Array, eps: float = 1e-5, T: float = 1.0) -> Array:
    """Training times, uniform in [eps, T), from ``u`` uniform in [0, 1), of any shape."""
    # parity: eps is 1e-5 for every SDE, also where sampling stops at 1e-3.
    return u * (T - eps) + eps


def sde_loss(
    sde: SDE,
    score_fn: ScoreFn,
    x0: Array,
    t: Array,
    noise: Array,
    *,
    likelihood_weighting: bool = False,
    reduce_mean: bool = False,
) -> Array:
    """The continuous-time objective (Song et al. 2021, eq. 7).

    Arguments:
        sde: the forward SDE.
        score_fn: ``score_fn(x[B, ...], t[B])``.
        x0: data in the network's range, ``[B, ...]``.
        t: times in (0, T], ``[B]``.
        noise: standard normal, of the shape of ``x0``.
        likelihood_weighting: weight g(t)^2, a bound on the likelihood, instead of std^2.
        reduce_mean: mean over the dimensions instead of half their sum.

    Returns:
        The loss of each sample, ``[B]``.
    """
    mean, std = sde.marginal_prob(x0, t)
    perturbed = mean + batch_mul(std, noise)
    score = score_fn(perturbed, t)
    if likelihood_weighting:
        diffusion = sde.sde(perturbed, t)[1]
        return _reduce((score + noise / per_sample(std, noise)) ** 2, reduce_mean) * diffusion**2
    return _reduce((batch_mul(std, score) + noise) ** 2, reduce_mean)


def smld_loss(
    sde: VESDE, model_fn: ModelFn, x0: Array, labels: Array, noise: Array, *, reduce_mean: bool = False
) -> Array:
    """The discrete objective of SMLD / NCSN (Song et al. 2021, eq. 1), weighted by sigma_i^2.

    Arguments:
        sde: the VE SDE whose levels are used.
        model_fn: ``model_fn(x[B, ...], labels[B])``, the score network.
        x0: data in the network's range, ``[B, ...]``.
        labels: level indices in 0 ... N-1, int32 ``[B]``; index 0 is the **largest** noise.
        noise: standard normal, of the shape of ``x0``.
        reduce_mean: mean over the dimensions instead of half their sum.

    Returns:
        The loss of each sample, ``[B]``.
    """
    # parity: label 0 is the largest level, step 0 of the sampler's table the smallest.
    sigma = take(sde.discrete_sigmas, sde.N - 1 - labels)
    scaled_noise = batch_mul(sigma, noise)
    score = model_fn(x0 + scaled_noise, labels)
    target = -scaled_noise / per_sample(sigma**2, noise)
    return _reduce((score - target) ** 2, reduce_mean) * sigma**2


def ddpm_loss(
    sde: VPSDE, model_fn: ModelFn, x0: Array, labels: Array, noise: Array, *, reduce_mean: bool = False
) -> Array:
    """The discrete noise-prediction objective of DDPM (Song et al. 2021, eq. 3; Ho et al. 2020, eq. 14).

    Arguments:
        sde: the VP SDE whose tables are used.
        model_fn: ``model_fn(x[B, ...], labels[B])``, the noise network.
        x0: data in the network's range, ``[B, ...]``.
        labels: step indices in 0 ... N-1, int32 ``[B]``; index 0 is the **least** noise.
        noise: standard normal, of the shape of ``x0``.
        reduce_mean: mean over the dimensions instead of half their sum.

    Returns:
        The loss of each sample, ``[B]``.
    """
    perturbed = batch_mul(take(sde.sqrt_alphas_cumprod, labels), x0)
    perturbed = perturbed + batch_mul(take(sde.sqrt_1m_alphas_cumprod, labels), noise)
    return _reduce((model_fn(perturbed, labels) - noise) ** 2, reduce_mean)


def _reduce(squares: Array, reduce_mean: bool) -> Array:
    # parity: the factor 1/2 belongs to the sum only.
    return sum_dims(squares) / dims_per_sample(squares) if reduce_mean else 0.5 * sum_dims(squares)
