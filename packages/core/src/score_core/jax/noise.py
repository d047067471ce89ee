"""Noise sources and probes in JAX.

:class:`PerSampleNoise` is a counter: the array of sample ``b`` for role ``r`` at step ``i``, iteration ``k`` is drawn
with the key ``fold(fold(fold(key, index_b), r), i * 2**12 + k)``. It depends on the sample's index alone, so a sample
is the same whatever the batch size, the number of devices or the number of processes. :class:`LegacyNoise` is the chain
of split keys of the original code, which draws a whole batch at a time; :class:`LegacyMeasurementNoise` is the chain of
its controllable generation.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from score_core.random import Role

__all__ = ["LegacyMeasurementNoise", "LegacyNoise", "PerSampleNoise", "per_sample_keys", "probe", "uniform_per_sample"]

_ITERATIONS = 2**12  # corrector iterations per step that have a counter of their own


def per_sample_keys(key: jax.Array, indices: jax.Array, role: Role) -> jax.Array:
    """One key per sample: ``key`` folded with the sample's index and the role.

    Args:
        key: a key of ``jax.random``.
        indices: ``[B]`` integers, the samples' numbers in the whole run.
        role: what is drawn.

    Returns:
        ``[B]`` keys.
    """
    fold = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(key, index), int(role)))
    return fold(indices)


def uniform_per_sample(key: jax.Array, indices: jax.Array, role: Role, shape: tuple[int, ...]) -> jax.Array:
    """``U[0, 1)`` of shape ``[B, *shape]``, one stream per sample index."""
    keys = per_sample_keys(key, indices, role)
    return jax.vmap(lambda k: jax.random.uniform(k, shape, jnp.float32))(keys)


def probe(key: jax.Array, indices: jax.Array | None, shape: tuple[int, ...], hutchinson_type: str) -> jax.Array:
    """The random vector of the Hutchinson-Skilling trace estimator, ``E[eps eps^T] = I``.

    Args:
        key: a key of ``jax.random``.
        indices: ``[B]`` sample numbers for per-sample streams, or None to draw the batch at once as the original does.
        shape: the batch's shape ``[B, ...]``.
        hutchinson_type: ``"Rademacher"`` (entries -1 and 1) or ``"Gaussian"``; upper or lower case.

    Raises:
        ValueError: for another type.
    """
    kind = hutchinson_type.lower()
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f"hutchinson_type is {hutchinson_type!r}; it must be 'Rademacher' or 'Gaussian'")

    def draw(k: jax.Array, size: tuple[int, ...]) -> jax.Array:
        if kind == "gaussian":
            return jax.random.normal(k, size, jnp.float32)
        return 2.0 * jax.random.randint(k, size, 0, 2).astype(jnp.float32) - 1.0

    if indices is None:
        return draw(key, shape)
    keys = per_sample_keys(key, indices, Role.PROBE)
    return jax.vmap(lambda k: draw(k, shape[1:]))(keys)


@partial(jax.tree_util.register_dataclass, data_fields=["key", "indices"], meta_fields=["sample_shape"])
@dataclass(frozen=True)
class PerSampleNoise:
    """Counter-based noise, one stream per sample.

    Attributes:
        key: a key of ``jax.random``.
        indices: ``[B]`` integers, the samples' numbers in the whole run.
        sample_shape: the shape of one sample.
    """

    key: jax.Array
    indices: jax.Array
    sample_shape: tuple[int, ...]

    def _draw(self, role: Role, counter: Any) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(per_sample_keys(self.key, self.indices, role), counter)
        return jax.vmap(lambda k: jax.random.normal(k, self.sample_shape, jnp.float32))(keys)

    def prior(self) -> tuple[Any, jax.Array]:
        return (), self._draw(Role.PRIOR, 0)

    def begin(self, carry: Any, i: Any) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, jax.Array]:
        return carry, self._draw(Role.CORRECTOR, i * _ITERATIONS + k)

    def predictor(self, carry: Any, i: Any) -> tuple[Any, jax.Array]:
        return carry, self._draw(Role.PREDICTOR, i)

    def measurement(self, carry: Any, j: Any) -> tuple[Any, jax.Array]:
        return carry, self._draw(Role.MEASUREMENT, j)


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["shape"])
@dataclass(frozen=True)
class LegacyNoise:
    """The original sampler's chain: ``rng, s = split(rng)`` for the prior, each corrector and each predictor.

    Inside a corrector, ``s`` is the head of a chain of its own, split once per iteration.

    Attributes:
        key: the key handed to the sampler.
        shape: the batch's shape ``[B, ...]``.
    """

    key: jax.Array
    shape: tuple[int, ...]

    def _normal(self, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, self.shape, jnp.float32)

    def prior(self) -> tuple[Any, jax.Array]:
        rng, s = jax.random.split(self.key)
        return (rng, rng), self._normal(s)

    def begin(self, carry: Any, i: Any) -> Any:
        del i
        rng, s = jax.random.split(carry[0])
        return rng, s

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, jax.Array]:
        del i, k
        rng, inner = carry
        inner, s = jax.random.split(inner)
        return (rng, inner), self._normal(s)

    def predictor(self, carry: Any, i: Any) -> tuple[Any, jax.Array]:
        del i
        rng, s = jax.random.split(carry[0])
        return (rng, s), self._normal(s)


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["shape"])
@dataclass(frozen=True)
class LegacyMeasurementNoise:
    """The chain of the original's inpainting and colourisation.

    ``rng, s = split(rng)`` for the prior and each update, then ``a, b = split(s)``: ``b`` is the corrector's or
    predictor's key, ``a`` the key of the known part's noise. The original draws no such noise at the start; where it is
    asked for, it comes from ``fold(key, MEASUREMENT)``.

    Attributes:
        key: the key handed to the sampler.
        shape: the batch's shape ``[B, ...]``.
    """

    key: jax.Array
    shape: tuple[int, ...]

    def _normal(self, key: jax.Array) -> jax.Array:
        return jax.random.normal(key, self.shape, jnp.float32)

    def prior(self) -> tuple[Any, jax.Array]:
        rng, s = jax.random.split(self.key)
        return (rng, rng, jax.random.fold_in(self.key, int(Role.MEASUREMENT))), self._normal(s)

    def begin(self, carry: Any, i: Any) -> Any:
        del i
        rng, s = jax.random.split(carry[0])
        a, b = jax.random.split(s)
        return rng, b, a

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, jax.Array]:
        del i, k
        rng, inner, a = carry
        inner, s = jax.random.split(inner)
        return (rng, inner, a), self._normal(s)

    def predictor(self, carry: Any, i: Any) -> tuple[Any, jax.Array]:
        carry = self.begin(carry, i)
        return carry, self._normal(carry[1])

    def measurement(self, carry: Any, j: Any) -> tuple[Any, jax.Array]:
        del j
        return carry, self._normal(carry[2])
