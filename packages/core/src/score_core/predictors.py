"""Predictors: one numerical step of the reverse SDE or ODE, from time t to the next (Song et al. 2021, section 4).

With f, g the reverse drift and diffusion, f_i, G_i their discretisation and z ~ N(0, I):

Euler-Maruyama      x <- x - f / N + g z / sqrt(N)
Reverse diffusion   x <- x - f_i + G_i z                                                            (Appendix E)
Ancestral, VP       x <- (x + beta_i score) / sqrt(1 - beta_i) + sqrt(beta_i) z                     (eq. 4)
Ancestral, VE       x <- x + (sigma_i^2 - sigma_{i-1}^2) score
                           + sigma_{i-1} sqrt((sigma_i^2 - sigma_{i-1}^2) / sigma_i^2) z            (Appendix F)

A predictor is a pure function of ``(x, t, noise)``: it receives its noise and never draws.
"""

import math
from abc import ABC, abstractmethod
from collections import ChainMap
from typing import Any

from score_core import registry
from score_core.arrays import Array, ScoreFn, batch_mul, namespace, per_sample, take
from score_core.sdes import SDE, VESDE, VPSDE
from score_core.solvers import FEW_STEP_RULES, FewStepRule

__all__ = [
    "PREDICTORS",
    "AncestralSamplingPredictor",
    "EulerMaruyamaPredictor",
    "NonePredictor",
    "Predictor",
    "ReverseDiffusionPredictor",
    "get_predictor",
    "register_predictor",
]


class Predictor(ABC):
    """One step of a reverse-time solver.

    Arguments:
        sde: the forward SDE.
        score_fn: ``score_fn(x[B, ...], t[B])``.
        probability_flow: solve the probability-flow ODE instead of the reverse SDE.
    """

    stochastic: bool = True
    """Whether :meth:`update` reads ``noise``; the driver may pass None otherwise."""

    def __init__(self, sde: SDE, score_fn: ScoreFn, probability_flow: bool = False) -> None:
        self.sde = sde
        self.score_fn = score_fn
        self.rsde = sde.reverse(score_fn, probability_flow)

    @abstractmethod
    def update(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        """Move ``x`` one step towards the data.

        Arguments:
            x: the state ``[B, ...]``.
            t: its time ``[B]``, in [eps, T].
            noise: standard normal, of the shape of ``x``; unused where ``stochastic`` is False.

        Returns:
            The next state and its mean, the same without the step's noise (the denoised sample at the last step).
        """


class EulerMaruyamaPredictor(Predictor):
    """The Euler-Maruyama discretisation of the reverse SDE."""

    def update(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        drift, diffusion = self.rsde.sde(x, t)
        # parity: the step is 1 / N although the times are (T - eps) / (N - 1) apart.
        x_mean = x - drift / self.rsde.N
        return x_mean + batch_mul(diffusion * math.sqrt(1 / self.rsde.N), noise), x_mean


class ReverseDiffusionPredictor(Predictor):
    """The reverse SDE discretised like the forward SDE (Song et al. 2021, Appendix E)."""

    def update(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        f, G = self.rsde.discretize(x, t)
        x_mean = x - f
        return x_mean + batch_mul(G, noise), x_mean


class AncestralSamplingPredictor(Predictor):
    """Ancestral sampling of the discrete DDPM (VP) or SMLD (VE) chain (Song et al. 2021, eq. 4 and Appendix F).

    Raises:
        NotImplementedError: the SDE is neither VP nor VE: only those have a discrete chain.
        ValueError: ``probability_flow`` is set; ancestral sampling is stochastic by nature.
    """

    def __init__(self, sde: SDE, score_fn: ScoreFn, probability_flow: bool = False) -> None:
        if not isinstance(sde, VPSDE | VESDE):
            raise NotImplementedError(
                f"Ancestral sampling is defined for VPSDE and VESDE, not for {type(sde).__name__}; "
                "set sampling.predictor to reverse_diffusion or euler_maruyama."
            )
        if probability_flow:
            raise ValueError(
                "Ancestral sampling has no probability-flow form; set sampling.probability_flow to False, "
                "or sampling.predictor to reverse_diffusion or euler_maruyama."
            )
        super().__init__(sde, score_fn, probability_flow)

    def update(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        if isinstance(self.sde, VPSDE):
            x_mean, std = self._vp_step(self.sde, x, t)
        else:
            assert isinstance(self.sde, VESDE)
            x_mean, std = self._ve_step(self.sde, x, t)
        return x_mean + batch_mul(std, noise), x_mean

    def _vp_step(self, sde: VPSDE, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(t)
        beta = take(sde.discrete_betas, sde.step_index(t))
        x_mean = (x + batch_mul(beta, self.score_fn(x, t))) / per_sample(xp.sqrt(1.0 - beta), x)
        return x_mean, xp.sqrt(beta)

    def _ve_step(self, sde: VESDE, x: Array, t: Array) -> tuple[Array, Array]:
        sigma, previous = sde.adjacent_sigmas(t)
        removed = sigma**2 - previous**2
        x_mean = x + batch_mul(removed, self.score_fn(x, t))
        return x_mean, namespace(t).sqrt(previous**2 * removed / sigma**2)


class NonePredictor(Predictor):
    """No prediction: leaves the work to the corrector."""

    stochastic = False

    def update(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        # parity: the mean of the corrector is lost, so noise_removal has no effect with this predictor.
        return x, x


PREDICTORS: dict[str, type[Predictor]] = {
    "euler_maruyama": EulerMaruyamaPredictor,
    "reverse_diffusion": ReverseDiffusionPredictor,
    "ancestral_sampling": AncestralSamplingPredictor,
    "none": NonePredictor,
}
"""The predictors that ``sampling.predictor`` can name, beside the few-step rules of :mod:`score_core.solvers`."""


def _rules() -> ChainMap[str, Any]:
    """Every name; new ones enter the first table."""
    tables: tuple[Any, Any] = (PREDICTORS, FEW_STEP_RULES)
    return ChainMap(*tables)


def register_predictor(cls: Any = None, *, name: str | None = None) -> Any:
    """Class decorator that makes a predictor or few-step rule known, by ``name`` or its class name (case is ignored).

    Raises:
        ValueError: the name is taken.
    """
    return registry.register(_rules(), "predictor", cls, name)


def get_predictor(name: str) -> type[Predictor] | type[FewStepRule]:
    """The predictor or few-step rule called ``name`` (case is ignored).

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    return registry.lookup(_rules(), "predictor", name)
