"""The U-net of :mod:`variational_sde.torch.unet` in Flax: a(y, t) for images ``[B, H, H, C]``.

The parameters are those of the PyTorch module, under the same names: ``{"begin_conv": {"kernel", "bias"}, ...}`` with
``kernel`` ``[3, 3, I, O]`` or ``[I, O]`` for its ``weight``, and ``scale`` for the ``weight`` of a normalisation.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_core.jax.networks.layers import timestep_embedding

__all__ = ["UNet", "params_from_torch", "params_to_torch"]


class UNet(nn.Module):
    """Images ``[B, H, H, input_channels]`` and times ``[B]`` to ``[B, H, H, output_channels]``.

    Attributes: as the arguments of the PyTorch module; ``groups`` of the normalisations.
    """

    input_channels: int
    input_height: int
    ch: int
    output_channels: int | None = None
    ch_mult: tuple[int, ...] = (1, 2, 4, 8)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.0
    resamp_with_conv: bool = True
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, train: bool = False) -> jax.Array:
        levels = len(self.ch_mult)
        temb = timestep_embedding(t, self.ch)  # parity: raw times, see the PyTorch module
        temb = nn.swish(self._dense("temb_net.main.0", temb, 4 * self.ch))
        temb = nn.swish(self._dense("temb_net.main.2", temb, 4 * self.ch))
        h = self._conv("begin_conv", x, self.ch)
        skips = [h]
        for i, mult in enumerate(self.ch_mult):
            at = f"down_modules.{i}"
            for j in range(self.num_res_blocks):
                h = self._block(f"{at}.{i}a_{j}a_block", skips[-1], temb, self.ch * mult, train)
                h = self._attention_at(f"{at}.{i}a_{j}b_attn", h)
                skips.append(h)
            if i < levels - 1:
                skips.append(self._downsample(f"{at}.{i}b_downsample", skips[-1]))
        width = skips[-1].shape[-1]
        h = self._block("mid_modules.0", skips[-1], temb, width, train)
        h = self._attention("mid_modules.1", h)
        h = self._block("mid_modules.2", h, temb, width, train)
        for k, i in enumerate(reversed(range(levels))):
            at = f"up_modules.{k}"
            for j in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(f"{at}.{i}a_{j}a_block", h, temb, self.ch * self.ch_mult[i], train)
                h = self._attention_at(f"{at}.{i}a_{j}b_attn", h)
            if i > 0:
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
                if self.resamp_with_conv:
                    h = self._conv(f"{at}.{i}b_upsample.up_conv", h, h.shape[-1])
        h = nn.swish(self._norm("end_conv.0", h))
        return self._conv("end_conv.2", h, self.output_channels or self.input_channels, scale=1e-10)

    def _block(self, name: str, x: jax.Array, temb: jax.Array, out: int, train: bool) -> jax.Array:
        h = self._conv(f"{name}.conv1", nn.swish(self._norm(f"{name}.norm1", x)), out)
        # temb comes with its activation applied
        h = h + self._dense(f"{name}.temb_proj", temb, out)[:, None, None, :]
        h = nn.swish(self._norm(f"{name}.norm2", h))
        if self.dropout > 0:
            h = nn.Dropout(self.dropout, broadcast_dims=(1, 2), name=f"{name}.dropout")(h, deterministic=not train)
        h = self._conv(f"{name}.conv2", h, out, scale=1e-10)
        return (x if x.shape[-1] == out else self._conv(f"{name}.shortcut", x, out, kernel=1)) + h

    def _attention_at(self, name: str, h: jax.Array) -> jax.Array:
        return self._attention(name, h) if h.shape[1] in self.attn_resolutions else h

    def _attention(self, name: str, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        h = self._norm(f"{name}.norm", x)
        q, k, v = (
            self._conv(f"{name}.attn_{part}", h, channels, kernel=1).reshape(batch, height * width, channels)
            for part in "qkv"
        )
        weights = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", q, k) * channels**-0.5, axis=-1)
        h = jnp.einsum("bqk,bkc->bqc", weights, v).reshape(x.shape)
        return x + self._conv(f"{name}.proj_out", h, channels, kernel=1, scale=1e-10)

    def _downsample(self, name: str, x: jax.Array) -> jax.Array:
        if self.resamp_with_conv:
            return self._conv(name, x, x.shape[-1], stride=2)
        return nn.avg_pool(x, (2, 2), (2, 2))

    def _conv(
        self, name: str, x: jax.Array, out: int, *, kernel: int = 3, stride: int = 1, scale: float = 1.0
    ) -> jax.Array:
        pad = kernel // 2
        layer = nn.Conv(
            out,
            (kernel, kernel),
            (stride, stride),
            padding=((pad, pad), (pad, pad)),
            # parity: fan_out, as in the PyTorch module
            kernel_init=nn.initializers.variance_scaling(scale, "fan_out", "uniform"),
            name=name,
        )
        return layer(x)

    def _dense(self, name: str, x: jax.Array, out: int) -> jax.Array:
        init = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        return nn.Dense(out, kernel_init=init, name=name)(x)

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        return nn.GroupNorm(self.groups, epsilon=1e-6, use_fast_variance=False, name=name)(x)


def params_from_torch(state: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The Flax parameters of a network's PyTorch state dict (arrays), of the U-net or the MLP."""
    params: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        array = np.asarray(value)
        if leaf == "bias":
            params.setdefault(module, {})["bias"] = array
        elif array.ndim == 1:
            params.setdefault(module, {})["scale"] = array
        else:
            axes = (2, 3, 1, 0) if array.ndim == 4 else (1, 0)
            params.setdefault(module, {})["kernel"] = array.transpose(axes)
    return params


def params_to_torch(params: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The inverse of :func:`params_from_torch`."""
    state: dict[str, np.ndarray] = {}
    for module, leaves in params.items():
        for leaf, value in leaves.items():
            array = np.asarray(value)
            if array.ndim > 1:
                array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
            state[f"{module}.{'bias' if leaf == 'bias' else 'weight'}"] = array
    return state
