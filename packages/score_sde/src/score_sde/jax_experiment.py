"""An experiment in JAX (see :mod:`score_sde.experiment`)."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.tree import restore_tree
from score_core.correctors import get_corrector
from score_core.errors import UsageError
from score_core.jax.likelihood import get_likelihood_fn
from score_core.jax.networks import create_model, init_params
from score_core.jax.noise import LegacyNoise, PerSampleNoise, probe, uniform_per_sample
from score_core.jax.parallel import Parallel
from score_core.jax.sampling import Samples, Trajectory, get_ode_sampler, get_pc_sampler
from score_core.jax.training import (
    Adam,
    LossFn,
    TrainState,
    create_state,
    get_eval_call,
    get_loss_fn,
    get_train_call,
    state_from_tree,
    state_to_tree,
)
from score_core.likelihood import LikelihoodResult
from score_core.predictors import get_predictor
from score_core.random import NoiseSource, Role
from score_sde import sde_lib
from score_sde.experiment import SAME_IN_BOTH, Experiment, optimizer_settings, usage_errors
from score_sde.models.utils import apply_fn

__all__ = ["JaxExperiment", "Keys"]

# Not worth optimising: compiling the initialisation takes a third of the time without it.
_RUN_ONCE = {"xla_backend_optimization_level": 0}
# Keys of PyTorch's training that a compiled JAX program has no use for, with the value that means nothing.
_TORCH_ONLY = {"accumulate": 1, "checkpoint_activations": False, "compile": False}


class Keys:
    """The keys of one evaluation: the original's chain of splits, by position, so that any round can be the first.

    parity: ``PRNGKey(seed + 1)``, first half of a split, folded with the process number, then one split per loss batch,
    bits/dim batch and sampling round, in that order, checkpoint after checkpoint.

    Attributes:
        base: the key of the per-sample streams.
    """

    def __init__(self, seed: int) -> None:
        self.base, _ = jax.random.split(jax.random.PRNGKey(seed + 1))
        self._head = jax.random.fold_in(self.base, 0)

    def carry(self, position: int) -> jax.Array:
        """The chain's carry after ``position`` splits."""
        return _carry(self._head, position)

    def at(self, position: int) -> jax.Array:
        """The key that split number ``position`` hands out."""
        return jax.random.split(self.carry(position))[1]


@jax.jit
def _carry(head: jax.Array, position: Any) -> jax.Array:
    return jax.lax.fori_loop(0, position, lambda _, rng: jax.random.split(rng)[0], head)


class JaxExperiment(Experiment):
    """A configuration with everything that JAX builds from it."""

    framework = "jax"
    file_format = "flax"
    real = np.float32
    make_sde = staticmethod(sde_lib.get_sde)

    @cached_property
    def parallel(self) -> Parallel:  # pyright: ignore[reportIncompatibleMethodOverride]  # the property, kept
        return Parallel(local=self.local)

    @cached_property
    def model(self) -> Any:
        dtype = self.config.training.dtype
        if dtype not in ("float32", "bfloat16"):
            raise UsageError(f"training.dtype is {dtype!r}; it must be 'float32' or 'bfloat16'")
        with usage_errors():
            model = self.make_network()
        return model if dtype == "float32" else model.clone(dtype=jnp.bfloat16)

    def make_network(self) -> Any:
        """The network of ``config.model``, computing in float32."""
        return create_model(self.config)

    @property
    def flavor(self) -> Any:
        """Whose numbers the network has, where the two original programs differ."""
        return self.config.model.flavor or "jax"

    def apply_fn(self, params: Any, x: Any, labels: Any, dropout_key: Any = None) -> Any:
        """The network; a dropout key means training mode."""
        return apply_fn(self.model)(params, x, labels, dropout_key)

    def sample_folder(self, step: int) -> str:
        return f"iter_{step}_host_0"

    def round_folder(self, number: int, host: int | str) -> str:
        return f"ckpt_{number}_host_{host}"

    # -- training ------------------------------------------------------------------------------------------------------

    def check_training(self) -> None:
        if self.config.model.flavor == "pytorch":
            raise UsageError("model.flavor=pytorch trains with --framework=torch only; leave it empty")
        for name, nothing in _TORCH_ONLY.items():
            if self.config.training[name] != nothing:
                raise UsageError(
                    f"training.{name} is {self.config.training[name]}, which means something with --framework=torch "
                    f"only; in JAX leave it at {nothing}"
                )
        _ = self.model, self.loss_fn, self.adam  # what is wrong with their settings, before anything is written

    def prepare(self, images: Any, key: Any) -> Any:
        """Training input: dequantised if ``data.uniform_dequantization`` says so."""
        if self.config.data.uniform_dequantization:
            return self.dequantize(images, jax.random.uniform(key, images.shape, jnp.float32))
        return self.scale(images)

    @cached_property
    def adam(self) -> Adam:
        with usage_errors():
            return Adam(**optimizer_settings(self.config))

    @cached_property
    def loss_fn(self) -> LossFn:
        with usage_errors():
            return get_loss_fn(self.sde, self.apply_fn, **self.objective_options())

    @cached_property
    def train_call(self) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:  # type: ignore[override]
        return get_train_call(self.loss_fn, self.adam, self.prepare)

    @cached_property
    def _eval_call(self) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return get_eval_call(self.loss_fn, self.prepare)

    def eval_call(self, state: TrainState, batches: Any) -> tuple[TrainState, jax.Array]:
        rng, losses = self._eval_call(state.rng, state.params_ema, batches)
        return state._replace(rng=rng), losses

    def to_device(self, images: np.ndarray) -> Any:
        return self.parallel.shard(images, axis=1)

    def initial_state(self) -> TrainState:
        state = self.init_state(jax.random.PRNGKey(self.config.seed))
        # parity: the original folds the process number into the loop's key; ours is shared by all processes
        return self.place(state._replace(rng=jax.random.fold_in(state.rng, 0)))

    def place(self, state: TrainState) -> TrainState:
        return self.parallel.replicate(state)

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

    def check_file(self, data: bytes) -> Any:
        return msgpack_format.loads(data)

    def encode_state(self, state: TrainState) -> bytes:
        # JAX hands out dicts with sorted keys, which is the order that parameter maps have in the original's files
        return msgpack_format.dumps(state_to_tree(jax.device_get(state)))

    def decode_state(self, data: bytes, *, where: Any) -> TrainState:
        tree = msgpack_format.loads(data, where=where)
        if self.config.model.name not in SAME_IN_BOTH:
            tree = self._without_mark(tree, where)
        return self.state_from_flax(tree, where=where)

    def _without_mark(self, tree: Any, where: Any) -> Any:
        """``tree`` without the mark that files of the PyTorch program's networks carry in ``model_state``."""
        mark = tree.get("model_state") if isinstance(tree, dict) else None
        written = mark.get("flavor", "jax") if isinstance(mark, dict) else "jax"
        if written != self.flavor:
            raise UsageError(
                f"{where} holds parameters of the {written} program's {self.config.model.name}, which computes other "
                f"numbers than the {self.flavor} program's: say which are meant by --config.model.flavor={written}"
            )
        return {**tree, "model_state": {}} if mark else tree

    def state_from_flax(self, tree: dict[str, Any], *, where: Any) -> TrainState:
        key = jax.random.PRNGKey(0)
        target = jax.eval_shape(lambda: state_to_tree(self._state_of(self._init_params(key), key)))
        return state_from_tree(restore_tree(target, tree, where=where))

    def check_sum(self, state: TrainState) -> float:
        return float(_sum(state.params))

    def draw_snapshot(self, state: TrainState) -> tuple[TrainState, np.ndarray]:
        rng, key = _split(state.rng)
        batch, shape = self.config.training.batch_size, self.image_shape
        if self.config.sampling.legacy_rng:
            noise: NoiseSource = LegacyNoise(key, (batch, *shape))
        else:
            noise = PerSampleNoise(key, self.parallel.shard_range(batch), shape)
        images = self.parallel.gather(self.sampler(state.params_ema, noise).images)
        return state._replace(rng=rng), images

    # -- sampling and evaluation ---------------------------------------------------------------------------------------

    @cached_property
    def keys(self) -> Keys:
        return Keys(self.config.seed)

    def pc_sampler(self, trajectory: Trajectory | None = None) -> Callable[[Any, NoiseSource], Samples]:
        """The predictor-corrector sampler that ``config.sampling`` describes."""
        sampling = self.config.sampling
        with usage_errors():
            return get_pc_sampler(
                self.sde,
                self.apply_fn,
                get_predictor(sampling.predictor),
                get_corrector(sampling.corrector),
                trajectory=trajectory,
                **self.pc_options(),
                **self.few_step_options(),
            )

    @cached_property
    def sampler(self) -> Callable[[Any, NoiseSource], Samples]:
        """``sampler(params, noise)`` for either method; compiled once."""
        if self.sampling_method == "pc":
            return jax.jit(self.pc_sampler())
        solve = get_ode_sampler(
            self.sde,
            self.apply_fn,
            denoise=self.config.sampling.noise_removal,
            eps=self.sampling_eps,
            inverse_scaler=self.inverse_scaler,
        )
        return lambda params, noise: solve(params, self.sde.prior_sampling(noise.prior()[1]))

    def check_sampler(self) -> None:
        _ = self.sampler

    @cached_property
    def likelihood(self) -> Callable[[Any, jax.Array, jax.Array], LikelihoodResult]:
        """``likelihood(params, data, probe)``: bits/dim of dequantised data in the network's range."""
        with usage_errors():
            return get_likelihood_fn(
                self.sde, self.apply_fn, inverse_scaler=self.inverse_scaler, solver=self.likelihood_solver
            )

    def parameters(self, state: TrainState, *, ema: bool) -> Any:
        return self.place(state.params_ema if ema else state.params)

    @cached_property
    def _losses(self) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
        def losses(params: Any, key: jax.Array, images: jax.Array) -> jax.Array:
            # parity: the step splits the key it is given once more
            step_key = jax.random.split(key)[1]
            return self.loss_fn(params, step_key, self.prepare(images, key), False)

        return jax.jit(losses)

    def losses(self, params: Any, position: int, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._losses(params, self.keys.at(position), self.parallel.shard(images)))

    def bits_per_dim(
        self, params: Any, position: int, images: np.ndarray, indices: np.ndarray, repeat: int
    ) -> LikelihoodResult:
        key = jax.random.fold_in(self.keys.base, repeat)
        numbers = self.parallel.shard(indices.astype(np.int32))
        u = uniform_per_sample(key, numbers, Role.DEQUANTIZATION, self.image_shape)
        data = self.dequantize(self.parallel.shard(images), u)
        if self.config.sampling.legacy_rng:
            eps = probe(jax.random.split(self.keys.at(position))[1], None, data.shape, "Rademacher")
        else:
            eps = probe(key, numbers, data.shape, "Rademacher")
        result = self.likelihood(params, data, eps)
        return replace(result, bpd=np.asarray(result.bpd), nats=np.asarray(result.nats), nfe=int(result.nfe))

    def draw(self, params: Any, position: int, round_: int) -> tuple[np.ndarray, int]:
        shape, batch = self.image_shape, self.config.eval.batch_size
        if self.config.sampling.legacy_rng:
            noise: NoiseSource = LegacyNoise(self.keys.at(position), (batch, *shape))
        else:
            noise = PerSampleNoise(self.keys.base, round_ * batch + self.parallel.shard_range(batch), shape)
        samples = self.sampler(params, noise)
        return np.asarray(samples.images), int(samples.nfe)

    def draw_trajectory(self, params: Any, chains: int, frames: int) -> np.ndarray:
        noise = PerSampleNoise(self.keys.base, jnp.arange(chains, dtype=jnp.int32), self.image_shape)
        return np.asarray(jax.jit(self.pc_sampler(Trajectory(frames)))(params, noise).trajectory)


@jax.jit
def _split(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The carry and the key that one split hands out."""
    carry, key = jax.random.split(key)
    return carry, key


@jax.jit
def _sum(params: Any) -> jax.Array:
    """Not finite if any parameter is not."""
    return sum((jnp.sum(leaf * 0.0) for leaf in jax.tree.leaves(params)), jnp.zeros(()))
