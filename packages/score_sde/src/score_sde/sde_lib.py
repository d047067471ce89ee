"""SDEs under the names of the original's ``sde_lib``: for code written against it, and as a base for SDEs of your own.

The mathematics is :mod:`score_core.sdes`. What is added is what the original's users rely on: ``prior_sampling(rng,
shape)`` draws, and tables are JAX arrays, which traced integers can index. A class of your own

- defines ``sde(x, t)`` and ``marginal_prob(x, t)``, with ``x`` ``[B, H, W, C]``, ``t`` ``[B]`` in (0, T];
- has a centred Gaussian prior: set ``prior_scale`` (its standard deviation, 1 by default), or define
  ``prior_sampling(rng, shape)`` and ``prior_logp(z)``;
- says what its network predicts (``predicts``: "noise", or "score" as for VE) and where sampling ends
  (``sampling_eps``, 1e-3);
- becomes a value of ``training.sde`` by ``@register_sde(name="mine")``. Its constructor is given ``N`` and those of its
  arguments that ``config.model`` has.
"""

from collections import ChainMap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core import sdes as core
from score_core.sdes import register_sde
from score_sde._old_style import count_required, key_from_noise

__all__ = ["SDE", "VESDE", "VPSDE", "get_sde", "register_sde", "subVPSDE"]


class SDE(core.SDE):
    """A forward SDE (see the module's text)."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        draw = cls.__dict__.get("prior_sampling")
        if draw is not None and count_required(draw) == 3:  # self, rng, shape
            cls.prior_sampling = _from_either(draw)

    def prior_sampling(self, rng: Any, shape: tuple[int, ...] | None = None) -> jax.Array:
        """A sample of the prior: of ``shape`` with the key ``rng``; or, given one array, from that standard normal."""
        z = rng if shape is None else jax.random.normal(rng, shape, jnp.float32)
        return super().prior_sampling(z)

    def _tables_as_jax_arrays(self) -> None:
        with jax.ensure_compile_time_eval():
            for name, value in vars(self).items():
                if isinstance(value, np.ndarray) and not name.startswith("_"):
                    setattr(self, name, jnp.asarray(value))


def _from_either(draw: Callable[..., Any]) -> Callable[..., Any]:
    """The user's ``prior_sampling(rng, shape)``, callable with standard normal noise as well."""

    def prior_sampling(self: SDE, rng: Any, shape: tuple[int, ...] | None = None) -> Any:
        return draw(self, key_from_noise(rng), rng.shape) if shape is None else draw(self, rng, shape)

    return prior_sampling


class _LinearBeta:
    """``beta_0`` and ``beta_1``, the original's names of ``beta_min`` and ``beta_max``."""

    beta_min: float
    beta_max: float

    @property
    def beta_0(self) -> float:
        return self.beta_min

    @property
    def beta_1(self) -> float:
        return self.beta_max


class VPSDE(_LinearBeta, SDE, core.VPSDE):
    """:class:`score_core.sdes.VPSDE` with JAX tables."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20, N: int = 1000) -> None:
        super().__init__(beta_min, beta_max, N)  # type: ignore[call-arg]
        self._tables_as_jax_arrays()


class subVPSDE(_LinearBeta, SDE, core.SubVPSDE):
    """:class:`score_core.sdes.SubVPSDE` with JAX tables."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20, N: int = 1000) -> None:
        super().__init__(beta_min, beta_max, N)  # type: ignore[call-arg]
        self._tables_as_jax_arrays()


class VESDE(SDE, core.VESDE):
    """:class:`score_core.sdes.VESDE` with JAX tables."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50, N: int = 1000) -> None:
        super().__init__(sigma_min, sigma_max, N)  # type: ignore[call-arg]
        self._tables_as_jax_arrays()


_OWN: dict[str, Callable[..., core.SDE]] = {"vpsde": VPSDE, "subvpsde": subVPSDE, "vesde": VESDE}
_SDES = ChainMap(_OWN, core.SDES)


def get_sde(name: str, /, *, N: int, **options: Any) -> core.SDE:
    """:func:`score_core.sdes.get_sde`, with the classes of this module."""
    return core.get_sde(name, _SDES, N=N, **options)
