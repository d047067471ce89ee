"""An experiment of these papers in PyTorch: training with losses of all orders, sampling, ODE likelihood.

The variational bound and the dequantiser are JAX's.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.errors import UsageError
from score_core.likelihood import LikelihoodResult
from score_core.torch.likelihood import get_likelihood_fn
from score_core.torch.training import LossFn
from score_flow_hdsm.experiment import ScoreFlow
from score_flow_hdsm.losses_torch import get_loss_parts_fn
from score_flow_hdsm.sdes import get_sde
from score_sde.experiment import usage_errors
from score_sde.torch_experiment import TorchExperiment

__all__ = ["TorchScoreFlow"]


class TorchScoreFlow(ScoreFlow, TorchExperiment):  # type: ignore[misc]
    """A configuration with everything that PyTorch builds from it."""

    make_sde = staticmethod(get_sde)

    @cached_property
    def flavor(self) -> Any:
        """The JAX program's numbers: these papers have no other."""
        return self.config.model.flavor or "jax"

    def check_training(self) -> None:
        super().check_training()
        training, model = self.config.training, self.config.model
        if training.score_matching_order > 1 and training.compile:
            raise UsageError("training.compile is for first order; higher orders differentiate the network forwards")
        if training.score_matching_order > 1 and training.checkpoint_activations:
            raise UsageError(
                "training.checkpoint_activations is for first order: PyTorch cannot recompute what is differentiated "
                "forwards. --framework=jax has training.remat for every order"
            )
        if training.remat:
            raise UsageError("training.remat is JAX's; with --framework=torch use training.checkpoint_activations")
        if model.trainable_embedding or (model.embedding_type.lower() == "fourier" and training.sde.lower() != "vesde"):
            raise UsageError(
                "Fourier features of times, and trained ones, are there with --framework=jax only: use "
                "model.embedding_type=positional"
            )

    @cached_property
    def loss_fn(self) -> LossFn:
        with usage_errors():
            parts_of = get_loss_parts_fn(self.sde, self.apply_fn, **self.loss_options())

        def losses(params: Any, key: Any, x0: Tensor, train: bool, first: int = 0) -> Tensor:
            parts = parts_of(params, key, x0, train, first)
            return torch.stack([parts.total, *parts], dim=-1)

        return losses

    def losses(self, params: Any, position: int, images: np.ndarray) -> np.ndarray:
        return super().losses(params, position, images)[:, 0]

    @cached_property
    def likelihood(self) -> Callable[[Any, Tensor, Tensor], LikelihoodResult]:
        if self.config.eval.bound or self.config.eval.dequantizer:
            raise UsageError(
                "eval.bound and eval.dequantizer are there with --framework=jax only (it reads these files)"
            )
        with usage_errors():
            return get_likelihood_fn(
                self.sde,
                self.apply_fn,
                inverse_scaler=self.inverse_scaler,
                eps=self.config.training.smallest_time,
                solver=self.likelihood_solver,
            )
