"""An experiment of these papers in JAX: losses of all orders, ODE likelihood, variational bound, dequantiser."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.checkpoints.store import find_checkpoint, latest_checkpoint
from score_core.data import get_data_scaler, to_float
from score_core.errors import UsageError
from score_core.jax.likelihood import get_likelihood_fn
from score_core.jax.noise import per_sample_keys
from score_core.jax.training import LossFn
from score_core.likelihood import LikelihoodResult, bpd_offset
from score_core.random import Role
from score_flow_hdsm.bound import get_likelihood_bound_fn
from score_flow_hdsm.dequantizer import Dequantizer, configured_dequantizer
from score_flow_hdsm.dequantizer_loss import with_noise
from score_flow_hdsm.draws import SampleDraws
from score_flow_hdsm.experiment import ScoreFlow
from score_flow_hdsm.losses import get_loss_parts_fn
from score_flow_hdsm.networks import create_model
from score_flow_hdsm.sdes import get_sde
from score_sde.experiment import usage_errors
from score_sde.jax_experiment import JaxExperiment

__all__ = ["JaxScoreFlow"]


class JaxScoreFlow(ScoreFlow, JaxExperiment):  # type: ignore[misc]
    """A configuration with everything that JAX builds from it."""

    make_sde = staticmethod(get_sde)

    def make_network(self) -> Any:
        model = create_model(self.config)
        if not self.config.training.remat:
            return model
        if not hasattr(model, "remat"):
            raise UsageError(
                f"training.remat is for the network ncsnpp; {self.config.model.name} cannot recompute itself"
            )
        return model.clone(remat=True)

    @cached_property
    def loss_fn(self) -> LossFn:
        training = self.config.training
        with usage_errors():
            options = self.loss_options() | {"program": training.program, "recompute": training.remat}
            parts_of = get_loss_parts_fn(self.sde, self.apply_fn, **options)

        def losses(params: Any, key: jax.Array, x0: jax.Array, train: bool) -> jax.Array:
            parts = parts_of(params, key, x0, train)
            return jnp.stack([parts.total, *parts], axis=-1)

        return losses

    def losses(self, params: Any, position: int, images: np.ndarray) -> np.ndarray:
        return super().losses(params, position, images)[:, 0]

    # -- likelihood ----------------------------------------------------------------------------------------------------

    @cached_property
    def likelihood(self) -> Callable[[Any, jax.Array, jax.Array], LikelihoodResult]:
        with usage_errors():
            return get_likelihood_fn(
                self.sde,
                self.apply_fn,
                inverse_scaler=self.inverse_scaler,
                eps=self.config.training.smallest_time,
                solver=self.likelihood_solver,
            )

    @cached_property
    def bound(self) -> Callable[..., tuple[jax.Array, int]]:
        """The variational bound that ``config.eval`` describes."""
        settings = self.config.eval
        with usage_errors():
            return get_likelihood_bound_fn(
                self.sde,
                self.apply_fn,
                inverse_scaler=self.inverse_scaler,
                dsm=settings.dsm,
                eps=self.config.training.smallest_time,
                N=settings.bound_times,
                eps_offset=settings.offset,
            )

    def bits_per_dim(
        self, params: Any, position: int, images: np.ndarray, indices: np.ndarray, repeat: int
    ) -> LikelihoodResult:
        settings = self.config.eval
        if not settings.bound and not settings.dequantizer:
            return super().bits_per_dim(params, position, images, indices, repeat)
        key = jax.random.fold_in(self.keys.base, repeat)
        numbers = self.parallel.shard(indices.astype(np.int32))
        data, entropy = self._dequantized(key, numbers, self.parallel.shard(images))
        if settings.bound:
            bpd, nfe = self.bound(params, data, per_sample_keys(key, numbers, Role.PREDICTOR), SampleDraws())
        else:
            probe = SampleDraws().signs(per_sample_keys(key, numbers, Role.PROBE), self.image_shape)
            result = self.likelihood(params, data, probe)
            bpd, nfe = result.bpd, int(result.nfe)
        bpd, dims = np.asarray(bpd), int(np.prod(self.image_shape))
        nats = -(bpd - bpd_offset(self.inverse_scaler)) * dims * np.log(2)
        # the flow's own density is part of the bound on 8-bit data
        bpd = bpd - np.asarray(entropy) / np.log(2) / dims
        return LikelihoodResult(bpd=bpd, nats=nats, z=None, nfe=nfe, offset=bpd_offset(self.inverse_scaler))

    def _dequantized(self, key: jax.Array, numbers: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images in the network's range with noise added, and -log q of that noise (0 for uniform noise)."""
        keys = per_sample_keys(key, numbers, Role.DEQUANTIZATION)
        if not self.config.eval.dequantizer:
            u = SampleDraws().uniform(keys, self.image_shape)
            return self.dequantize(images, u), jnp.zeros(numbers.shape)
        module, variables = self.trained_dequantizer
        image = to_float(images)
        noise, entropy = _apply(module, variables, SampleDraws().normal(keys, self.image_shape), image)
        return get_data_scaler(self.config.data.centered)(with_noise(image, noise)), entropy

    @cached_property
    def trained_dequantizer(self) -> tuple[Dequantizer, Any]:
        """The flow and the averaged parameters of its checkpoint.

        Raises:
            MissingCheckpointError: there is none; train it with --mode=train_deq.
        """
        from score_flow_hdsm.dequantizer_experiment import read_dequantizer

        if self.workdir is None:
            raise UsageError("eval.dequantizer needs a work directory with a trained dequantiser")
        module = configured_dequantizer(self.config)
        folder, number = self.workdir / self.deq_folder / "checkpoints", self.config.eval.deq_ckpt
        path = latest_checkpoint(folder) if number < 0 else find_checkpoint(folder, number)
        if path is None:
            raise UsageError(f"no dequantiser in {folder}: train one with --mode=train_deq, or name its --deq_folder")
        return module, self.parallel.replicate(read_dequantizer(path, module, self.image_shape).params_ema)


@partial(jax.jit, static_argnums=0)
def _apply(module: Dequantizer, variables: Any, u: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    noise_and_entropy: Any = module.apply(variables, u, image)
    return noise_and_entropy
