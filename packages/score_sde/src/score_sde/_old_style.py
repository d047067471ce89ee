"""Running rules written for the original, which draw their own noise from a key, in loops that hand out noise."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["count_required", "key_from_noise"]


def key_from_noise(noise: jax.Array) -> jax.Array:
    """A key (uint32 ``[2]``) that is a function of every bit of ``noise``, any shape.

    Equal noise gives equal keys, so a run stays a function of its seed. The key belongs to the whole batch: rules that
    draw for themselves do not have one stream a sample.
    """
    bits = jax.lax.bitcast_convert_type(noise.astype(jnp.float32).ravel(), jnp.uint32)
    odd = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    return jnp.stack([jnp.sum(bits * odd), jnp.sum((bits ^ (bits >> 16)) * (odd * odd + 2))]).astype(jnp.uint32)


def count_required(method: Callable[..., Any]) -> int:
    """How many parameters of a method have no default, ``self`` included."""
    return sum(p.default is p.empty for p in inspect.signature(method).parameters.values())
