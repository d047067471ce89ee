r"""The training step in JAX: loss, Adam with warm-up and clipping, EMA; state in, state out.

One step from parameters :math:`\theta`, in this order (Song et al. 2021, appendix H; the original's optimiser):

1. gradient :math:`g` of the mean loss over the global batch;
2. :math:`\eta = \mathrm{lr} \cdot \min(\mathrm{step} / \mathrm{warmup}, 1)`, ``step`` counted before this update;
3. :math:`g \leftarrow g \cdot c / \max(\|g\|, c)` if the clipping norm ``c`` is not negative;
4. Adam: :math:`\theta \leftarrow \theta - \eta (\hat m / (\sqrt{\hat v} + \epsilon) + \lambda \theta)`;
5. EMA of the parameters; ``step += 1``.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from score_core.jax.ema import ema_update
from score_core.jax.ode import LoopForm, default_loop
from score_core.objectives import ddpm_loss, sample_times, sde_loss, smld_loss
from score_core.parameterization import get_score_fn
from score_core.random import Role
from score_core.sdes import SDE, VESDE, VPSDE

__all__ = [
    "Adam",
    "Optimizer",
    "TrainState",
    "create_state",
    "get_eval_call",
    "get_loss_fn",
    "get_train_call",
    "get_update_fn",
    "state_from_tree",
    "state_to_tree",
]

TrainApplyFn = Callable[..., jax.Array]
"""``apply_fn(params, x, labels, dropout_key=None) -> out``; a key means training mode."""
LossFn = Callable[[Any, jax.Array, jax.Array, bool], jax.Array]
"""``losses(params, key, x0, train) -> [B]``; or ``[B, k]``, of which the first is minimised and all are reported."""
Prepare = Callable[[jax.Array, jax.Array], jax.Array]
"""``prepare(images uint8, key) -> x0``: dequantisation (if any) and scaling to the network's range."""

UpdateFn = Callable[[tuple[jax.Array, "TrainState"], jax.Array], tuple[tuple[jax.Array, "TrainState"], jax.Array]]


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
        step: int32 scalar, updates done.
        params, params_ema: network parameters and their moving average.
        adam: optax's Adam state (count, mu, nu).
        rng: the loop's key (uint32 ``[2]``).
        lr, ema_rate: float32 scalars; kept in the checkpoint and restored from it.
    """

    step: jax.Array
    params: Any
    params_ema: Any
    adam: optax.ScaleByAdamState
    rng: jax.Array
    lr: jax.Array
    ema_rate: jax.Array


class Adam(NamedTuple):
    """Hyper-parameters of the optimiser (``config.optim``); a negative ``grad_clip`` switches clipping off."""

    beta1: float
    eps: float
    warmup: int
    grad_clip: float
    weight_decay: float

    def transform(self) -> optax.GradientTransformation:
        # parity: beta2 is fixed
        return optax.scale_by_adam(b1=self.beta1, b2=0.999, eps=self.eps)

    def update(self, grads: Any, state: TrainState) -> tuple[Any, optax.ScaleByAdamState]:
        """The new parameters and Adam state (steps 2 to 4 of the module's list)."""
        lr = state.lr
        if self.warmup > 0:
            # parity: the counter before the increment, so the first update has a learning rate of zero
            lr = lr * jnp.minimum(state.step / self.warmup, 1.0)
        if self.grad_clip >= 0:
            norm = optax.tree.norm(grads)
            grads = jax.tree.map(lambda g: g * (self.grad_clip / jnp.maximum(norm, self.grad_clip)), grads)
        updates, adam = self.transform().update(grads, state.adam)
        decay = self.weight_decay
        params = jax.tree.map(
            lambda p, u: p - lr * u - (lr * decay) * p if decay else p - lr * u, state.params, updates
        )
        return params, adam  # type: ignore[return-value]


class Optimizer(Protocol):
    """What turns gradients into new parameters; :class:`Adam` is one."""

    def update(self, grads: Any, state: TrainState) -> tuple[Any, Any]:
        """The new parameters and the new ``state.adam``."""
        ...


def create_state(params: Any, rng: jax.Array, *, adam: Adam, lr: float, ema_rate: float) -> TrainState:
    """A fresh state; the moving average starts at the initial parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        params_ema=jax.tree.map(jnp.copy, params),
        adam=adam.transform().init(params),  # type: ignore[arg-type]
        rng=rng,
        lr=jnp.asarray(lr, jnp.float32),
        ema_rate=jnp.asarray(ema_rate, jnp.float32),
    )


def get_loss_fn(
    sde: SDE,
    apply_fn: TrainApplyFn,
    *,
    continuous: bool,
    reduce_mean: bool,
    likelihood_weighting: bool = False,
    eps: float = 1e-5,
) -> LossFn:
    """Builds the denoising score matching loss of a batch.

    Args:
        sde: the forward SDE.
        apply_fn: the network.
        continuous: time is continuous (equation 7); otherwise the discrete losses of SMLD (VE) and DDPM (VP).
        reduce_mean: mean over the pixels instead of half their sum.
        likelihood_weighting: weight ``g(t)^2``.
        eps: the smallest time.

    Returns:
        ``losses(params, key, x0 [B, H, W, C], train) -> [B]``, one value per image; training minimises their mean.

    Raises:
        ValueError: for likelihood weighting or the sub-VP SDE with discrete noise levels.
    """
    if not continuous and likelihood_weighting:
        raise ValueError("training.likelihood_weighting needs training.continuous = True")
    if not continuous and not isinstance(sde, (VESDE, VPSDE)):
        raise ValueError(f"training.continuous = False needs the VE or the VP SDE, not {type(sde).__name__}")

    def loss_fn(params: Any, key: jax.Array, x0: jax.Array, train: bool) -> jax.Array:
        # parity: the original's chain of keys: time or label, then noise, then dropout
        key, time_key = jax.random.split(key)
        key, noise_key = jax.random.split(key)
        _, dropout_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, x0.shape, jnp.float32)

        def model_fn(x: jax.Array, labels: jax.Array) -> jax.Array:
            return apply_fn(params, x, labels, dropout_key=dropout_key if train else None)

        if continuous:
            # parity: the smallest time is 1e-5 for every SDE, not the sampler's eps
            t = sample_times(jax.random.uniform(time_key, x0.shape[:1], jnp.float32), eps, sde.T)
            score_fn = get_score_fn(sde, model_fn, True)
            return sde_loss(
                sde, score_fn, x0, t, noise, likelihood_weighting=likelihood_weighting, reduce_mean=reduce_mean
            )
        labels = jax.random.choice(time_key, sde.N, x0.shape[:1])
        objective: Any = smld_loss if isinstance(sde, VESDE) else ddpm_loss
        return objective(sde, model_fn, x0, labels, noise, reduce_mean=reduce_mean)

    return loss_fn


def _data_key(step_key: jax.Array) -> jax.Array:
    """A key beside the original's chain: there the data pipeline drew its own numbers, without a seed."""
    return jax.random.fold_in(step_key, int(Role.DEQUANTIZATION))


def get_update_fn(loss_fn: LossFn, adam: Optimizer, prepare: Prepare) -> UpdateFn:
    """Builds one update (the module's list), to be compiled by the caller.

    Returns:
        ``update((key, state), images [B, H, W, C]) -> ((key, state), loss)``; the key is split once.
    """

    def update(
        carry: tuple[jax.Array, TrainState], images: jax.Array
    ) -> tuple[tuple[jax.Array, TrainState], jax.Array]:
        key, state = carry
        key, step_key = jax.random.split(key)
        x0 = prepare(images, _data_key(step_key))

        def objective(params: Any) -> tuple[jax.Array, jax.Array]:
            means = jnp.mean(loss_fn(params, step_key, x0, True), axis=0)
            return means if means.ndim == 0 else means[0], means

        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        params, adam_state = adam.update(grads, state)
        ema = ema_update(state.params_ema, params, state.ema_rate)
        state = state._replace(step=state.step + 1, params=params, params_ema=ema, adam=adam_state)
        return (key, state), loss

    return update


def get_train_call(
    loss_fn: LossFn, adam: Adam, prepare: Prepare, loop: LoopForm | None = None
) -> Callable[[TrainState, jax.Array], tuple[TrainState, jax.Array]]:
    """Builds one call of the training loop: ``n_jitted_steps`` updates.

    Args:
        loss_fn: from :func:`get_loss_fn`.
        adam: the optimiser.
        prepare: uint8 images to network input, on the device.
        loop: ``"scan"`` (one compiled scan over the updates) or ``"host"`` (a compiled update driven from Python); by
            default the faster one for the back end. The numbers are the same.

    Returns:
        ``call(state, batches [n_jitted_steps, B, H, W, C] uint8) -> (state, losses [n_jitted_steps])``. The state that
        is handed in is donated: do not use it again.
    """

    update = get_update_fn(loss_fn, adam, prepare)

    def begin(state: TrainState) -> tuple[jax.Array, TrainState]:
        rng, key = jax.random.split(state.rng)
        return key, state._replace(rng=rng)

    @partial(jax.jit, donate_argnums=0)
    def scanned(state: TrainState, batches: jax.Array) -> tuple[TrainState, jax.Array]:
        (_, state), losses = jax.lax.scan(update, begin(state), batches)
        return state, losses

    host_begin = jax.jit(begin, donate_argnums=0)
    host_update = jax.jit(update, donate_argnums=0)

    def driven(state: TrainState, batches: jax.Array) -> tuple[TrainState, jax.Array]:
        carry = host_begin(state)
        losses = []
        # By index: an array with parts in other processes cannot be iterated over.
        for j in range(batches.shape[0]):
            carry, loss = host_update(carry, batches[j])
            losses.append(loss)
        return carry[1], jnp.stack(losses)

    return scanned if (loop or default_loop(has_gradient=True)) == "scan" else driven


def get_eval_call(
    loss_fn: LossFn, prepare: Prepare
) -> Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """Builds the held-out loss with the given (EMA) parameters.

    Returns:
        ``call(rng, params, batches [n, B, H, W, C] uint8) -> (rng, losses [n, B])``.
    """

    @jax.jit
    def call(rng: jax.Array, params: Any, batches: jax.Array) -> tuple[jax.Array, jax.Array]:
        rng, key = jax.random.split(rng)

        def one(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            key, step_key = jax.random.split(key)
            return key, loss_fn(params, step_key, prepare(images, _data_key(step_key)), False)

        return rng, jax.lax.scan(one, key, batches)[1]

    return call


def state_to_tree(state: TrainState) -> dict[str, Any]:
    """The state as the nested dict of the original's checkpoint files (``optimizer/target``, ``params_ema``, ...)."""
    moments = jax.tree.map(lambda m, v: {"grad_ema": m, "grad_sq_ema": v}, state.adam.mu, state.adam.nu)
    return {
        "step": state.step,
        "optimizer": {"target": state.params, "state": {"step": state.adam.count, "param_states": moments}},
        "lr": state.lr,
        "model_state": {},
        "ema_rate": state.ema_rate,
        "params_ema": state.params_ema,
        "rng": state.rng,
    }


def state_from_tree(tree: dict[str, Any]) -> TrainState:
    """The inverse of :func:`state_to_tree`, for a tree whose names and shapes have been checked."""

    def is_moment(node: Any) -> bool:
        return isinstance(node, dict) and set(node) == {"grad_ema", "grad_sq_ema"}

    moments = tree["optimizer"]["state"]["param_states"]

    def pick(name: str) -> Any:
        return jax.tree.map(lambda moment: jnp.asarray(moment[name]), moments, is_leaf=is_moment)

    arrays = partial(jax.tree.map, jnp.asarray)
    return TrainState(
        step=jnp.asarray(tree["step"], jnp.int32),
        params=arrays(tree["optimizer"]["target"]),
        params_ema=arrays(tree["params_ema"]),
        adam=optax.ScaleByAdamState(
            count=jnp.asarray(tree["optimizer"]["state"]["step"], jnp.int32),
            mu=pick("grad_ema"),
            nu=pick("grad_sq_ema"),
        ),
        rng=jnp.asarray(tree["rng"], jnp.uint32),
        lr=jnp.asarray(tree["lr"], jnp.float32),
        ema_rate=jnp.asarray(tree["ema_rate"], jnp.float32),
    )
