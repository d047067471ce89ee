"""From a network's output to the score grad_x log p_t(x) (Song et al. 2021, section 3.3 and Appendices B, C).

VP, sub-VP   the network predicts the noise:  score = -model(x, label) / std(t)
  continuous   label = 999 t,        std = standard deviation of the marginal
  discrete     label = (N - 1) t,    std = sqrt(1 - alpha_bar_label)          (VP only)
VE           the network predicts the score:  score = model(x, label)
  continuous   label = sigma(t)
  discrete     label = round((N - 1) (T - t)), index 0 the **largest** noise
SDEs of your own are like continuous VP or continuous VE, as their attribute ``predicts`` says ("noise" or "score").
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from score_core.arrays import Array, ScoreFn, namespace, per_sample, take
from score_core.sdes import SDE, VESDE, VPSDE

__all__ = ["ModelFn", "get_score_fn"]

ModelFn: TypeAlias = Callable[[Array, Array], Array]
"""``model_fn(x[B, ...], labels[B])``: the network, its output of the shape of ``x``."""


def get_score_fn(sde: SDE, model_fn: ModelFn, continuous: bool) -> ScoreFn:
    """The score function of a network trained on ``sde``.

    Arguments:
        sde: the forward SDE.
        model_fn: the network with its parameters and mode fixed. Its labels are float32, int32 for a discrete VE model.
        continuous: trained on continuous times (``training.continuous``). All but VP and VE always are.

    Returns:
        ``score_fn(x[B, ...], t[B]) -> [B, ...]``.

    Raises:
        ValueError: discrete VP with fewer steps than beta_max.
    """
    if isinstance(sde, VESDE) and not continuous:
        return _discrete_ve_score_fn(sde, model_fn)
    if isinstance(sde, VPSDE) and not continuous:
        return _discrete_vp_score_fn(sde, model_fn)
    if sde.predicts == "score":
        return _continuous_score_fn(sde, model_fn)
    return _continuous_noise_fn(sde, model_fn)


def _continuous_noise_fn(sde: SDE, model_fn: ModelFn) -> ScoreFn:
    def score_fn(x: Array, t: Array) -> Array:
        # parity: 999 whatever N is, the label range of a 1000-step DDPM.
        labels = t * 999
        std = sde.marginal_prob(x, t)[1]
        return -model_fn(x, labels) / per_sample(std, x)

    return score_fn


def _continuous_score_fn(sde: SDE, model_fn: ModelFn) -> ScoreFn:
    def score_fn(x: Array, t: Array) -> Array:
        return model_fn(x, sde.marginal_prob(x, t)[1])

    return score_fn


def _discrete_vp_score_fn(sde: VPSDE, model_fn: ModelFn) -> ScoreFn:
    if not np.isfinite(sde.sqrt_alphas_cumprod).all():
        raise ValueError(
            f"The DDPM chain needs more steps than beta_max: N is {sde.N}, beta_max {sde.beta_max}. "
            "Raise model.num_scales, or set training.continuous to True."
        )

    def score_fn(x: Array, t: Array) -> Array:
        # parity: the network sees the unrounded label, the table its truncation.
        labels = t * (sde.N - 1)
        xp = namespace(labels)
        std = take(sde.sqrt_1m_alphas_cumprod, xp.astype(labels, xp.int32))
        return -model_fn(x, labels) / per_sample(std, x)

    return score_fn


def _discrete_ve_score_fn(sde: VESDE, model_fn: ModelFn) -> ScoreFn:
    def score_fn(x: Array, t: Array) -> Array:
        xp = namespace(t)
        # parity: rounded half to even, where the sampler's step index truncates.
        return model_fn(x, xp.astype(xp.round((sde.T - t) * (sde.N - 1)), xp.int32))

    return score_fn
