"""The network of the Swissroll study in Flax; parameters as :mod:`variational_sde.jax.unet` has them."""

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["MLP"]


class MLP(nn.Module):
    """Four linear layers with swish between them on a point ``[B, input_dim]`` and its time ``[B]``."""

    input_dim: int = 2
    hidden_dim: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        h = jnp.concatenate([x, t.reshape(-1, 1)], axis=1)
        for layer in (0, 2, 4):
            h = nn.swish(nn.Dense(self.hidden_dim, name=f"main.{layer}")(h))
        return nn.Dense(self.input_dim, name="main.6")(h)
