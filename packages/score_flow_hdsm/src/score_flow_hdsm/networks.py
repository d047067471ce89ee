"""NCSN++ and DDPM++ as both programs have them: random Fourier features of any SDE's label, and trainable ones."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax import networks
from score_core.jax.networks.layers import GaussianFourierProjection, get_activation, time_mlp
from score_core.jax.networks.ncsnpp import NCSNpp

__all__ = ["ScoreNetwork", "create_model"]


class ScoreNetwork(NCSNpp):
    """:class:`score_core.jax.networks.ncsnpp.NCSNpp`, its parameter tree unchanged.

    Arguments beside those:
        log_label: the Fourier features are of the label's logarithm (VE: labels are noise levels), or of the label.
        trainable_embedding: the frequencies of the Fourier features are trained.
    """

    log_label: bool = True
    trainable_embedding: bool = False

    @classmethod
    def from_config(cls, config: Any) -> "ScoreNetwork":
        """The network of ``config``.

        Raises:
            ValueError: an embedding or a scaling that the SDE does not have.
        """
        sde, model = config.training.sde.lower(), config.model
        positional = model.embedding_type.lower() == "positional"
        if positional and sde == "vesde":
            raise ValueError("model.embedding_type 'positional' needs labels that are times; for vesde use 'fourier'")
        if model.scale_by_sigma and sde != "vesde":
            raise ValueError(
                f"model.scale_by_sigma divides by the noise level, which labels are for vesde, not {sde}; set it False"
            )
        return (
            super()
            .from_config(config)
            .clone(  # type: ignore[return-value]
                log_label=sde == "vesde", trainable_embedding=model.trainable_embedding
            )
        )

    def _embed(self, labels: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        if self.embedding_type != "fourier":
            return super()._embed(labels)
        levels = labels.astype(jnp.float32)
        project = GaussianFourierProjection(self.nf, self.fourier_scale, self.trainable_embedding)
        embedding = project(jnp.log(levels) if self.log_label else levels)
        temb = time_mlp(embedding, self.nf, get_activation(self.nonlinearity)) if self.conditional else None
        return temb, levels


def create_model(config: Any) -> nn.Module:
    """The network of ``config``: that of this module for ``ncsnpp``, else one that users registered.

    Raises:
        ValueError: an unknown name, or a hyper-parameter outside its choices.
    """
    if config.model.name.lower() == "ncsnpp":
        return ScoreNetwork.from_config(config)
    return networks.create_model(config)
