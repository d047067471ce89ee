"""Where the random arrays of a bound come from: one key for a batch, as the originals have it, or one a sample.

With one key a sample, an image's numbers do not depend on which batch it is in. Both give arrays ``[B, ...]`` and are
used alike: ``key, used = draws.split(key)``; ``draws.normal(used, shape)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

__all__ = ["BatchDraws", "Draws", "SampleDraws"]


class Draws(Protocol):
    """Random arrays for a batch; ``shape`` is that of one sample."""

    def split(self, key: jax.Array) -> tuple[jax.Array, jax.Array]: ...

    def normal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array: ...

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array: ...

    def signs(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array: ...


@dataclass(frozen=True)
class BatchDraws:
    """One key for ``batch`` samples."""

    batch: int

    def split(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, used = jax.random.split(key)
        return key, used

    def normal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.normal(key, (self.batch, *shape), jnp.float32)

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        # The batch is the last axis of the times that are drawn for it.
        return jnp.moveaxis(jax.random.uniform(key, (*shape, self.batch), jnp.float32), -1, 0)

    def signs(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.rademacher(key, (self.batch, *shape), jnp.float32)


@dataclass(frozen=True)
class SampleDraws:
    """One key a sample: keys are ``[B, 2]``."""

    def split(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.vmap(jax.random.split)(key)
        return keys[:, 0], keys[:, 1]

    def normal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return _each(jax.random.normal, key, shape)

    def uniform(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return _each(jax.random.uniform, key, shape)

    def signs(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return _each(jax.random.rademacher, key, shape)


def _each(draw: Callable[..., jax.Array], keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda key: draw(key, shape, jnp.float32))(keys)
