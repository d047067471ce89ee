"""Samplers under the names of the original's ``sampling``: predictors, correctors, the loops that drive them.

A predictor of your own subclasses :class:`Predictor` and defines either of

    update_fn(self, rng, x, t) -> (x, x_mean)        draws its own noise from the key ``rng``, as in the original
    update(self, x, t, noise) -> (x, x_mean)         is given standard normal noise; one stream a sample, so that a
                                                     sample does not depend on the batch it is drawn in

A corrector subclasses :class:`Corrector` and defines ``update_fn``, which does ``self.n_steps`` iterations, or
``step(self, x, t, noise)``, which does one. ``@register_predictor(name="mine")`` and
``@register_corrector(name="mine")`` make them values of ``sampling.predictor`` and ``sampling.corrector``. Shapes:
``x`` ``[B, H, W, C]``, ``t`` ``[B]``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from score_core import correctors, predictors
from score_core.correctors import get_corrector, register_corrector
from score_core.jax import sampling as drivers
from score_core.jax.noise import LegacyNoise
from score_core.predictors import get_predictor, register_predictor
from score_sde._old_style import key_from_noise
from score_sde.models.utils import apply_fn

__all__ = [
    "AncestralSamplingPredictor",
    "AnnealedLangevinDynamics",
    "Corrector",
    "EulerMaruyamaPredictor",
    "LangevinCorrector",
    "NoneCorrector",
    "NonePredictor",
    "Predictor",
    "ReverseDiffusionPredictor",
    "get_corrector",
    "get_ode_sampler",
    "get_pc_sampler",
    "get_predictor",
    "get_sampling_fn",
    "register_corrector",
    "register_predictor",
]


def _require_one(cls: type, base: type, *names: str) -> None:
    if all(getattr(cls, name) is getattr(base, name) for name in names):
        raise TypeError(f"{cls.__name__} must define {' or '.join(names)}")


class Predictor(predictors.Predictor):
    """One step of a reverse-time solver; define ``update_fn`` or ``update`` (see the module's text).

    Arguments:
        sde: the forward SDE (``self.sde``); its reversal is ``self.rsde``.
        score_fn: ``score_fn(x, t)``.
        probability_flow: whether the ODE is to be solved.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _require_one(cls, Predictor, "update_fn", "update")

    def update_fn(self, rng: jax.Array, x: jax.Array, t: jax.Array) -> tuple[Any, Any]:
        """One update with noise drawn from the key ``rng``."""
        return self.update(x, t, jax.random.normal(rng, x.shape, jnp.float32))

    def update(self, x: Any, t: Any, noise: Any) -> tuple[Any, Any]:
        return self.update_fn(key_from_noise(noise), x, t)


class Corrector(correctors.Corrector):
    """Langevin iterations at a fixed time; define ``update_fn`` or ``step`` (see the module's text).

    Arguments:
        sde: the forward SDE. score_fn: ``score_fn(x, t)``. snr: the signal-to-noise ratio.
        n_steps: iterations of ``update_fn``. In a sampler, which counts them itself, it is 1.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _require_one(cls, Corrector, "update_fn", "step")

    def __init__(self, sde: Any, score_fn: Any, snr: float, n_steps: int = 1, **options: Any) -> None:
        super().__init__(sde, score_fn, snr, **options)
        self.n_steps = n_steps

    def update_fn(self, rng: jax.Array, x: jax.Array, t: jax.Array) -> tuple[Any, Any]:
        """``n_steps`` iterations with noise drawn from the key ``rng``."""
        x_mean = x
        for _ in range(self.n_steps):
            rng, key = jax.random.split(rng)
            x, x_mean = self.step(x, t, jax.random.normal(key, x.shape, jnp.float32))
        return x, x_mean

    def step(self, x: Any, t: Any, noise: Any) -> tuple[Any, Any]:
        return self.update_fn(key_from_noise(noise), x, t)


class EulerMaruyamaPredictor(predictors.EulerMaruyamaPredictor, Predictor):
    """:class:`score_core.predictors.EulerMaruyamaPredictor` with ``update_fn``."""


class ReverseDiffusionPredictor(predictors.ReverseDiffusionPredictor, Predictor):
    """:class:`score_core.predictors.ReverseDiffusionPredictor` with ``update_fn``."""


class AncestralSamplingPredictor(predictors.AncestralSamplingPredictor, Predictor):
    """:class:`score_core.predictors.AncestralSamplingPredictor` with ``update_fn``."""


class NonePredictor(predictors.NonePredictor, Predictor):
    """:class:`score_core.predictors.NonePredictor` with ``update_fn``."""


class LangevinCorrector(correctors.LangevinCorrector, Corrector):
    """:class:`score_core.correctors.LangevinCorrector` with ``update_fn``."""


class AnnealedLangevinDynamics(correctors.AnnealedLangevinDynamics, Corrector):
    """:class:`score_core.correctors.AnnealedLangevinDynamics` with ``update_fn``."""


class NoneCorrector(correctors.NoneCorrector, Corrector):
    """:class:`score_core.correctors.NoneCorrector` with ``update_fn``."""


def get_pc_sampler(
    sde: Any,
    model: Any,
    shape: tuple[int, ...],
    predictor: type[Any] | None,
    corrector: type[Any] | None,
    inverse_scaler: Callable[[Any], Any],
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-3,
    **few_step: Any,
) -> Callable[[jax.Array, Any], tuple[jax.Array, int]]:
    """The predictor-corrector sampler (Algorithm 1), compiled.

    Arguments:
        sde, predictor, corrector, snr, n_steps, probability_flow, continuous, denoise, eps, inverse_scaler: see
            :func:`score_core.jax.sampling.get_pc_sampler`; None stands for "none".
        model: the Flax network.
        shape: of the batch, ``(B, H, W, C)``.
        few_step: ``steps``, ``spacing`` and ``eta`` of few-step rules.

    Returns:
        ``pc_sampler(rng, state) -> (images [B, H, W, C], nfe)`` with the state's averaged parameters. Unlike the
        original's, neither argument nor result has a leading device axis.
    """
    sampler = jax.jit(
        drivers.get_pc_sampler(
            sde,
            apply_fn(model),
            predictor or NonePredictor,
            corrector or NoneCorrector,
            snr=snr,
            n_steps=n_steps,
            probability_flow=probability_flow,
            continuous=continuous,
            denoise=denoise,
            eps=eps,
            inverse_scaler=inverse_scaler,
            **few_step,
        )
    )

    def pc_sampler(rng: jax.Array, state: Any) -> tuple[jax.Array, int]:
        samples = sampler(state.params_ema, LegacyNoise(rng, tuple(shape)))
        return samples.images, int(samples.nfe)

    return pc_sampler


def get_ode_sampler(
    sde: Any,
    model: Any,
    shape: tuple[int, ...],
    inverse_scaler: Callable[[Any], Any],
    denoise: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "RK45",
    eps: float = 1e-3,
) -> Callable[..., tuple[jax.Array, int]]:
    """The probability-flow ODE sampler, by RK45 on the device.

    Arguments:
        sde, denoise, rtol, atol, eps, inverse_scaler: see :func:`score_core.jax.sampling.get_ode_sampler`.
        model: the Flax network.
        shape: of the batch, ``(B, H, W, C)``.

    Returns:
        ``ode_sampler(rng, state, z=None) -> (images [B, H, W, C], nfe)``; ``z`` is a latent ``[B, H, W, C]`` to start
        from.

    Raises:
        ValueError: another method than RK45.
    """
    if method != "RK45":
        raise ValueError(f"method is {method!r}; it must be 'RK45'")
    solve = drivers.get_ode_sampler(
        sde, apply_fn(model), denoise=denoise, rtol=rtol, atol=atol, eps=eps, inverse_scaler=inverse_scaler
    )

    def ode_sampler(rng: jax.Array, state: Any, z: jax.Array | None = None) -> tuple[jax.Array, int]:
        if z is None:
            _, key = jax.random.split(rng)
            start: jax.Array = sde.prior_sampling(jax.random.normal(key, tuple(shape), jnp.float32))
        else:
            start = z
        samples = solve(state.params_ema, start)
        return samples.images, int(samples.nfe)

    return ode_sampler


def get_sampling_fn(
    config: ml_collections.ConfigDict,
    sde: Any,
    model: Any,
    shape: tuple[int, ...],
    inverse_scaler: Callable[[Any], Any],
    eps: float,
) -> Callable[..., tuple[jax.Array, int]]:
    """The sampler that ``config.sampling`` describes.

    Raises:
        ValueError: ``sampling.method`` is neither "pc" nor "ode", or an unknown rule.
    """
    sampling: Any = config.sampling
    method = sampling.method.lower()
    if method == "ode":
        return get_ode_sampler(sde, model, shape, inverse_scaler, denoise=sampling.noise_removal, eps=eps)
    if method != "pc":
        raise ValueError(f"sampling.method is {sampling.method!r}; it must be 'pc' or 'ode'")
    return get_pc_sampler(
        sde,
        model,
        shape,
        get_predictor(sampling.predictor),
        get_corrector(sampling.corrector),
        inverse_scaler,
        sampling.snr,
        n_steps=sampling.n_steps_each,
        probability_flow=sampling.probability_flow,
        continuous=config.training.continuous,  # type: ignore[attr-defined]
        denoise=sampling.noise_removal,
        eps=eps,
        **{key: sampling[key] for key in ("steps", "spacing", "eta") if key in sampling},
    )
