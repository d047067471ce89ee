"""The classifier in JAX: its network, one update, its accuracy on a batch, its state as a tree."""

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.checkpoints.tree import restore_tree
from score_core.controllable import classification_loss
from score_core.data import get_data_scaler, to_float
from score_core.jax.ema import ema_update
from score_core.jax.networks import WideResnet
from score_core.jax.networks.wideresnet import get_classifier_grad_fn, get_logit_fn
from score_core.jax.noise import PerSampleNoise
from score_core.jax.training import Adam, TrainState, create_state, state_from_tree, state_to_tree
from score_core.objectives import sample_times
from score_core.sdes import SDE

__all__ = ["Classifier"]


class Classifier:
    """A wide ResNet that is given noisy images in the network's range (of the score network, not standardised).

    Arguments:
        sde: whose noise is added.
        network: ``blocks_per_group``, ``channel_multiplier``, ``num_outputs``, ``num_channels``.
        image_size: side of the images.
        centered: whether the network's range is [-1, 1].
        published: the parameters are the original's, which expects images with CIFAR-10's means and deviations taken
            out.
    """

    def __init__(
        self, sde: SDE, network: dict[str, int], image_size: int, centered: bool, published: bool = False
    ) -> None:
        self.sde = sde
        self.shape = (image_size, image_size, network["num_channels"])
        sizes: Any = {name: size for name, size in network.items() if name != "num_channels"}
        self.model = WideResnet(**sizes)
        self.scaler = get_data_scaler(centered)
        self.published = published

    def logits(self, params: Any, x: jax.Array, std: jax.Array) -> jax.Array:
        """Logits ``[B, K]`` of noisy images ``x`` ``[B, H, W, C]`` in the network's range."""
        if self.published:
            return get_logit_fn(self.model, params)(x, std)
        return self.model.apply({"params": params}, x, std, train=False)  # type: ignore[return-value]

    def gradient(self, params: Any, x: jax.Array, std: jax.Array, labels: jax.Array) -> jax.Array:
        """grad_x log p(label | x), of the shape of ``x``."""
        return get_classifier_grad_fn(partial(self.logits, params))(x, std, labels)

    def params_from_tree(self, tree: Any, where: Any) -> Any:
        """Parameters on the device.

        Raises:
            CheckpointError: they belong to another network.
        """
        target = jax.eval_shape(self._init, jax.random.key(0))
        return jax.tree.map(jnp.asarray, restore_tree(target, tree, where=where))

    def _init(self, key: jax.Array) -> Any:
        variables: Any = self.model.init(key, jnp.zeros((1, *self.shape)), jnp.ones((1,)), train=False)
        return variables["params"]

    def init_state(self, adam: dict[str, Any], lr: float, ema_rate: float, seed: int) -> TrainState:
        """A fresh state; ``adam`` are the fields of :class:`score_core.jax.training.Adam`."""
        self.adam = Adam(**adam)
        key = jax.random.PRNGKey(seed)
        return create_state(jax.jit(self._init)(key), key, adam=self.adam, lr=lr, ema_rate=ema_rate)

    def update(self, state: TrainState, images: np.ndarray, labels: np.ndarray) -> tuple[TrainState, jax.Array]:
        """One update on uint8 images ``[B, H, W, C]``; the loss stays on the device. The state is used up."""
        return self._update(state, images, labels)

    @cached_property
    def _update(self) -> Any:
        @partial(jax.jit, donate_argnums=0)
        def update(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
            x0 = self.scaler(to_float(images))
            time_key, noise_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
            t = sample_times(jax.random.uniform(time_key, x0.shape[:1], jnp.float32), T=self.sde.T)
            z = jax.random.normal(noise_key, x0.shape, jnp.float32)

            def loss_fn(params: Any) -> jax.Array:
                return classification_loss(self.sde, partial(self.logits, params), x0, labels, t, z)[0].mean()

            loss, grads = jax.value_and_grad(loss_fn)(state.params)
            params, adam = self.adam.update(grads, state)
            ema = ema_update(state.params_ema, params, state.ema_rate)
            return state._replace(step=state.step + 1, params=params, params_ema=ema, adam=adam), loss

        return update

    def params_to_tree(self, state: TrainState) -> dict[str, Any]:
        """The averaged parameters on the host."""
        return jax.device_get(state.params_ema)

    def state_to_tree(self, state: TrainState) -> dict[str, Any]:
        """Everything, on the host (:func:`score_core.jax.training.state_to_tree`)."""
        return jax.device_get(state_to_tree(state))

    def state_from_tree(self, tree: dict[str, Any], state: TrainState, where: Any) -> TrainState:
        """The inverse; ``state`` gives names and shapes.

        Raises:
            CheckpointError: it belongs to another network.
        """
        return state_from_tree(restore_tree(state_to_tree(state), tree, where=where))

    def measure(
        self, params: Any, images: np.ndarray, labels: np.ndarray, index: np.ndarray, times: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy in nats and correctness, each ``[K, B]``, of uint8 images at the times ``[K]``.

        Arguments:
            index: the images' numbers, of which their noise is a function.
        """
        return jax.device_get(self._measure(params, images, labels, index, jnp.asarray(times, jnp.float32), seed))

    @cached_property
    def _measure(self) -> Any:
        @jax.jit
        def measure(params: Any, images: Any, labels: Any, index: Any, times: Any, seed: Any) -> Any:
            x0 = self.scaler(to_float(images))
            noise = PerSampleNoise(jax.random.PRNGKey(seed), index, self.shape)

            def at(level: Any) -> Any:
                t = jnp.full(x0.shape[:1], times[level])
                z = noise.measurement((), level)[1]
                return classification_loss(self.sde, partial(self.logits, params), x0, labels, t, z)

            return jax.lax.map(at, jnp.arange(times.shape[0]))

        return measure
