"""Training the dequantiser for a trained score model, as an experiment of :mod:`score_sde.train`.

workdir/checkpoints/checkpoint_{eval.ckpt_id}     the score model, whose averaged parameters are used
workdir/{deq_folder}/...                          what training writes; checkpoints have the original's layout
"""

from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.store import find_checkpoint, read_checkpoint
from score_core.checkpoints.tree import restore_tree
from score_core.data import get_data_scaler
from score_core.errors import UsageError
from score_core.jax.ema import ema_update
from score_core.jax.training import Adam, TrainState, create_state, state_from_tree, state_to_tree
from score_flow_hdsm.dequantizer import Dequantizer, configured_dequantizer
from score_flow_hdsm.dequantizer_loss import get_dequantizer_loss_fn
from score_flow_hdsm.jax_experiment import JaxScoreFlow
from score_sde.experiment import Framework, usage_errors

__all__ = ["DeqState", "DequantizerExperiment", "read_dequantizer", "train_deq"]


class DeqState(NamedTuple):
    """Everything that training a dequantiser changes; ``params`` are the flow's variables, with the level ``params``.

    ``ema_train_bpd`` and ``ema_eval_bpd`` are running means of bits/dim, for the log.
    """

    step: jax.Array
    params: Any
    params_ema: Any
    adam: optax.ScaleByAdamState
    rng: jax.Array
    lr: jax.Array
    ema_rate: jax.Array
    ema_train_bpd: jax.Array
    ema_eval_bpd: jax.Array


_MEANS = ("ema_train_bpd", "ema_eval_bpd")


def _with_means(state: TrainState, train: Any = 0.0, evaluation: Any = 0.0) -> DeqState:
    means = (jnp.asarray(train, jnp.float32), jnp.asarray(evaluation, jnp.float32))
    return DeqState(**state._asdict(), **dict(zip(_MEANS, means, strict=True)))


def _to_tree(state: DeqState) -> dict[str, Any]:
    tree = state_to_tree(state)  # type: ignore[arg-type]
    del tree["model_state"]
    return tree | {name: getattr(state, name) for name in _MEANS}


def _decode(data: bytes, target: Any, where: Any) -> DeqState:
    tree = restore_tree(target, msgpack_format.loads(data, where=where), where=where)
    means = (tree.pop(name) for name in _MEANS)
    return _with_means(state_from_tree(tree), *means)


def _target(module: Dequantizer, image_shape: tuple[int, ...]) -> Any:
    """Names and shapes of a dequantiser's checkpoint."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.random.PRNGKey(0)

    def make(u: jax.Array, x: jax.Array) -> Any:
        adam = Adam(beta1=0.9, eps=1e-8, warmup=0, grad_clip=-1.0, weight_decay=0.0)
        state = create_state(module.init(key, u, x), key, adam=adam, lr=0.0, ema_rate=0.0)
        return _to_tree(_with_means(state))

    return jax.eval_shape(make, images, images)


def read_dequantizer(path: Path, module: Dequantizer, image_shape: tuple[int, ...]) -> DeqState:
    """The state in a dequantiser's checkpoint.

    Raises:
        CheckpointError: it is damaged, or belongs to another dequantiser.
    """
    return _decode(read_checkpoint(path), _target(module, image_shape), path)


class DequantizerExperiment(JaxScoreFlow):
    """A dequantiser under training."""

    loss_names = ("loss", "bpd", "ema_bpd")

    def __init__(self, config: ml_collections.ConfigDict, local: bool = False, *, score: Path) -> None:
        super().__init__(config, local)
        self.score = score

    @cached_property
    def flow(self) -> Dequantizer:
        return configured_dequantizer(self.config)

    @cached_property
    def score_params(self) -> Any:
        """The score model's averaged parameters."""
        return self.parallel.replicate(self.score_experiment.load_state(self.score).params_ema)

    @cached_property
    def score_experiment(self) -> JaxScoreFlow:
        return JaxScoreFlow(self.config, self.local)

    def check_training(self) -> None:
        super().check_training()
        if self.parallel.process_count > 1:
            raise UsageError("--mode=train_deq runs in one process, on all devices of its machine")
        _ = self.deq_loss

    @cached_property
    def deq_loss(self) -> Any:
        with usage_errors():
            return get_dequantizer_loss_fn(
                self.sde,
                self.apply_fn,
                self.flow.apply,  # type: ignore[arg-type]
                scaler=get_data_scaler(self.config.data.centered),
                inverse_scaler=self.inverse_scaler,
                eps=self.config.training.smallest_time,
                eps_offset=self.config.deq.offset,
            )

    # -- state ---------------------------------------------------------------------------------------------------------

    def initial_state(self) -> Any:
        """Initialised by the first training batch."""
        rng, key = jax.random.split(jax.random.PRNGKey(self.config.seed))
        noise_key, params_key = jax.random.split(key)
        data = self.pipeline("train", self.config.training.batch_size, seed=self.config.seed)
        image = jnp.asarray(data.batch(0).image, jnp.float32) / 255.0
        u = jax.random.normal(noise_key, image.shape, jnp.float32)
        variables = jax.jit(self.flow.init)(params_key, u, image)
        lr, ema_rate = self.config.optim.lr, self.config.deq.ema_rate
        state: Any = _with_means(create_state(variables, rng, adam=self.adam, lr=lr, ema_rate=ema_rate))
        return self.place(state)

    def encode_state(self, state: Any) -> bytes:
        return msgpack_format.dumps(_to_tree(jax.device_get(state)))

    def decode_state(self, data: bytes, *, where: Any) -> Any:
        return _decode(data, _target(self.flow, self.image_shape), where)

    # -- steps ---------------------------------------------------------------------------------------------------------

    @partial(jax.jit, static_argnums=0, donate_argnums=2)
    def _update(self, score_params: Any, carry: Any, images: jax.Array) -> Any:
        key, state = carry
        key, step_key = jax.random.split(key)

        def objective(variables: Any) -> tuple[jax.Array, jax.Array]:
            nats, bpd = self.deq_loss(variables, score_params, step_key, self.scale(images), True)
            return jnp.mean(nats), jnp.mean(bpd)

        (loss, bpd), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, adam = self.adam.update(grads, state)
        ema = ema_update(state.params_ema, params, state.ema_rate)
        state = state._replace(step=state.step + 1, params=params, params_ema=ema, adam=adam)
        return (key, state), jnp.stack([loss, bpd])

    def train_call(self, state: Any, batches: Any) -> tuple[Any, Any]:  # type: ignore[override]
        log_freq = self.config.training.log_freq
        first = state.step + 0  # a copy: the updates use the state up
        carry = _begin(state)
        rows = []
        for j in range(batches.shape[0]):
            carry, row = self._update(self.score_params, carry, batches[j])
            rows.append(row)
        state, losses = carry[1], jnp.stack(rows)
        # parity: the running mean moves at logged iterations only
        mean = jnp.where(first % log_freq == 0, 0.99 * state.ema_train_bpd + 0.01 * jnp.mean(losses[:, 1]),
                         state.ema_train_bpd)  # fmt: skip
        return state._replace(ema_train_bpd=mean), _with_column(losses, mean)

    @partial(jax.jit, static_argnums=0)
    def _evaluate(self, score_params: Any, variables: Any, key: jax.Array, images: jax.Array) -> jax.Array:
        nats, bpd = self.deq_loss(variables, score_params, key, self.scale(images), False)
        return jnp.stack([jnp.mean(nats), jnp.mean(bpd)])

    def eval_call(self, state: Any, batches: Any) -> tuple[Any, Any]:
        rng, key = jax.random.split(state.rng)
        rows = []
        for j in range(batches.shape[0]):
            key, step_key = jax.random.split(key)
            rows.append(self._evaluate(self.score_params, state.params_ema, step_key, batches[j]))
        losses = jnp.stack(rows)
        mean = 0.9 * state.ema_eval_bpd + 0.1 * jnp.mean(losses[:, 1])
        return state._replace(rng=rng, ema_eval_bpd=mean), _with_column(losses, mean)


@partial(jax.jit, donate_argnums=0)
def _begin(state: DeqState) -> tuple[jax.Array, DeqState]:
    rng, key = jax.random.split(state.rng)
    return key, state._replace(rng=rng)


def _with_column(losses: jax.Array, mean: jax.Array) -> jax.Array:
    return jnp.concatenate([losses, jnp.broadcast_to(mean, (len(losses), 1))], axis=1)


def train_deq(config: ml_collections.ConfigDict, workdir: Path, deq_folder: str, *, force: bool = False) -> None:
    """Trains a dequantiser for ``workdir/checkpoints/checkpoint_{eval.ckpt_id}``; resumes by itself.

    Raises:
        UserError: see its message; a missing checkpoint lists those present.
        StopRequested: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    from score_sde.train import train

    if not workdir.is_dir():
        raise UsageError(f"no work directory {workdir}: train the score model first (--mode=train)")
    own: Any = config.copy_and_resolve_references()
    score = find_checkpoint(workdir / "checkpoints", own.eval.ckpt_id)
    with own.unlocked():
        own.training.n_iters = own.deq.n_iters
        del own.deq["n_iters"]  # one name for it, that of the number which may grow from start to start
        own.training.snapshot_sampling = False
        own.deq.score_sha256 = sha256(read_checkpoint(score)).hexdigest()  # another score model is another run

    def make(config: ml_collections.ConfigDict, framework: Framework) -> DequantizerExperiment:
        if framework != "jax":
            raise UsageError("--mode=train_deq is there with --framework=jax only")
        return DequantizerExperiment(config, score=score)

    train(own, workdir / deq_folder, force=force, make_experiment=make)
