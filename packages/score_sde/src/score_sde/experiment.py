"""What a configuration means: the one place where SDE, network, data, rules and objective are put together."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.tree import restore_tree
from score_core.correctors import get_corrector
from score_core.data import (
    Pipeline,
    Source,
    dequantize,
    get_data_inverse_scaler,
    get_data_scaler,
    to_float,
)
from score_core.errors import UsageError
from score_core.jax.likelihood import get_likelihood_fn
from score_core.jax.networks import create_model, init_params
from score_core.jax.parallel import Parallel
from score_core.jax.sampling import Samples, Trajectory, get_ode_sampler, get_pc_sampler
from score_core.jax.training import (
    Adam,
    LossFn,
    TrainState,
    create_state,
    get_loss_fn,
    state_from_tree,
    state_to_tree,
)
from score_core.likelihood import LikelihoodResult
from score_core.predictors import get_predictor
from score_core.random import NoiseSource
from score_core.sdes import SDE
from score_sde.data_source import source_of
from score_sde.losses import get_optimizer
from score_sde.models.utils import apply_fn
from score_sde.sde_lib import get_sde

__all__ = ["Experiment"]

# Not worth optimising: compiling the initialisation takes a third of the time without it.
_RUN_ONCE = {"xla_backend_optimization_level": 0}


@dataclass(frozen=True)
class Experiment:
    """A configuration with everything that is built from it.

    Attributes:
        config: complete and locked (see :mod:`score_sde.configs.load`).
        local: use the devices of this process alone, whatever other processes there are.
    """

    config: ml_collections.ConfigDict
    local: bool = False

    @cached_property
    def parallel(self) -> Parallel:
        return Parallel(local=self.local)

    @cached_property
    def sde(self) -> SDE:
        model = self.config.model
        with _usage_errors():
            return get_sde(self.config.training.sde, N=model.num_scales, **model)

    @property
    def sampling_eps(self) -> float:
        """The time at which sampling ends: 1e-3 for VP and sub-VP, 1e-5 for VE."""
        return self.sde.sampling_eps

    @cached_property
    def model(self) -> Any:
        dtype = self.config.training.dtype
        if dtype not in ("float32", "bfloat16"):
            raise UsageError(f"training.dtype is {dtype!r}; it must be 'float32' or 'bfloat16'")
        with _usage_errors():
            model = create_model(self.config)
        return model if dtype == "float32" else model.clone(dtype=jnp.bfloat16)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        data = self.config.data
        return data.image_size, data.image_size, data.num_channels

    @property
    def inverse_scaler(self) -> Callable[[Any], Any]:
        return get_data_inverse_scaler(self.config.data.centered)

    def apply_fn(self, params: Any, x: Any, labels: Any, dropout_key: Any = None) -> Any:
        """The network; a dropout key means training mode."""
        return apply_fn(self.model)(params, x, labels, dropout_key)

    def scale(self, images: Any) -> Any:
        """uint8 images ``[..., H, W, C]`` in the network's range."""
        return get_data_scaler(self.config.data.centered)(to_float(images))

    def dequantize(self, images: Any, u: Any) -> Any:
        """uint8 images with uniform dequantisation noise ``u`` of ``U[0, 1)``, in the network's range."""
        return get_data_scaler(self.config.data.centered)(dequantize(to_float(images), u))

    def prepare(self, images: Any, key: Any) -> Any:
        """Training input: dequantised if ``data.uniform_dequantization`` says so."""
        if self.config.data.uniform_dequantization:
            return self.dequantize(images, jax.random.uniform(key, images.shape, jnp.float32))
        return self.scale(images)

    @cached_property
    def adam(self) -> Adam:
        with _usage_errors():
            return get_optimizer(self.config)

    @cached_property
    def loss_fn(self) -> LossFn:
        training = self.config.training
        with _usage_errors():
            return get_loss_fn(
                self.sde,
                self.apply_fn,
                continuous=training.continuous,
                reduce_mean=training.reduce_mean,
                likelihood_weighting=training.likelihood_weighting,
            )

    def init_state(self, rng: jax.Array) -> TrainState:
        """A fresh state, deterministic in ``rng``; the state keeps the carry of the original's key chain."""
        rng, init_key = jax.random.split(rng)
        init = jax.jit(self._init_params, compiler_options=_RUN_ONCE)
        return self._state_of(init(jax.random.split(init_key)[0]), rng)

    def _init_params(self, key: jax.Array) -> dict[str, Any]:
        return init_params(self.model, key, self.image_shape)

    def _state_of(self, params: Any, rng: jax.Array) -> TrainState:
        lr, ema_rate = self.config.optim.lr, self.config.model.ema_rate
        return create_state(params, rng, adam=self.adam, lr=lr, ema_rate=ema_rate)

    def encode_state(self, state: TrainState) -> bytes:
        """The state as a checkpoint file of the original's layout."""
        # JAX hands out dicts with sorted keys, which is the order that parameter maps have in the original's files
        return msgpack_format.dumps(state_to_tree(jax.device_get(state)))

    def decode_state(self, data: bytes, *, where: Any) -> TrainState:
        """The state in a checkpoint file, names and shapes compared with this experiment's network.

        Raises:
            CheckpointError: the file is damaged, or belongs to another network.
        """
        key = jax.random.PRNGKey(0)
        target = jax.eval_shape(lambda: state_to_tree(self._state_of(self._init_params(key), key)))
        return state_from_tree(restore_tree(target, msgpack_format.loads(data, where=where), where=where))

    def load_state(self, path: Any) -> TrainState:
        """Reads, verifies and decodes a checkpoint file."""
        return self.decode_state(read_checkpoint(path), where=path)

    def source(self, split: str) -> Source:
        """``train`` or ``test`` images."""
        return source_of(self.config, split)

    def pipeline(
        self, split: str, batch_size: int, *, seed: int, flip: bool = False, drop_remainder: bool = False
    ) -> Pipeline:
        """This process's share of the batches of a split; training batches run on from epoch to epoch by default."""
        return Pipeline(
            self.source(split),
            batch_size,
            seed=seed,
            random_flip=flip,
            process_index=self.parallel.process_index,
            process_count=self.parallel.process_count,
            drop_remainder=drop_remainder,
        )

    def pc_sampler(self, trajectory: Trajectory | None = None) -> Callable[[Any, NoiseSource], Samples]:
        """The predictor-corrector sampler that ``config.sampling`` describes."""
        sampling = self.config.sampling
        with _usage_errors():
            return get_pc_sampler(
                self.sde,
                self.apply_fn,
                get_predictor(sampling.predictor),
                get_corrector(sampling.corrector),
                snr=sampling.snr,
                n_steps=sampling.n_steps_each,
                probability_flow=sampling.probability_flow,
                continuous=self.config.training.continuous,
                denoise=sampling.noise_removal,
                eps=self.sampling_eps,
                inverse_scaler=self.inverse_scaler,
                corrector_norm=sampling.corrector_norm,
                trajectory=trajectory,
                steps=sampling.steps,
                spacing=sampling.spacing,
                eta=sampling.eta,
            )

    @cached_property
    def sampler(self) -> Callable[[Any, NoiseSource], Samples]:
        """``sampler(params, noise)`` for either method; compiled once."""
        method = self.config.sampling.method.lower()
        if method == "pc":
            return jax.jit(self.pc_sampler())
        if method != "ode":
            raise UsageError(f"sampling.method is {self.config.sampling.method!r}; it must be 'pc' or 'ode'")
        solve = get_ode_sampler(
            self.sde,
            self.apply_fn,
            denoise=self.config.sampling.noise_removal,
            eps=self.sampling_eps,
            inverse_scaler=self.inverse_scaler,
        )
        return lambda params, noise: solve(params, self.sde.prior_sampling(noise.prior()[1]))

    @cached_property
    def likelihood(self) -> Callable[[Any, jax.Array, jax.Array], LikelihoodResult]:
        """``likelihood(params, data, probe)``: bits/dim of dequantised data in the network's range."""
        return get_likelihood_fn(self.sde, self.apply_fn, inverse_scaler=self.inverse_scaler)


class _usage_errors:
    """A ValueError or NotImplementedError about a configuration value is the user's to mend: no traceback."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, (ValueError, NotImplementedError)):
            raise UsageError(str(error)) from error
