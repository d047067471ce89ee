"""The classifier in PyTorch: its network, one update, its accuracy on a batch, its state as a tree.

Times and noise are those of the JAX wing, and so are the names and the layout of parameters and moments in the trees.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from score_core.checkpoints.tree import flatten, restore_tree, sort_names, unflatten
from score_core.controllable import classification_loss
from score_core.data import get_data_scaler, to_float
from score_core.objectives import sample_times
from score_core.sdes import SDE
from score_core.torch import threefry
from score_core.torch.flax_state import state_from_flax
from score_core.torch.networks import WideResnet, init_params
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.networks.wideresnet import get_classifier_grad_fn, get_logit_fn
from score_core.torch.noise import PerSampleNoise
from score_core.torch.train_state import Adam, TrainState, create_state

__all__ = ["Classifier"]

_MOMENTS = {"grad_ema": "exp_avg", "grad_sq_ema": "exp_avg_sq"}


class Classifier:
    """A wide ResNet that is given noisy images in the network's range (of the score network, not standardised).

    Arguments:
        sde: whose noise is added.
        network: ``blocks_per_group``, ``channel_multiplier``, ``num_outputs``, ``num_channels``.
        image_size: side of the images.
        centered: whether the network's range is [-1, 1].
        published: the parameters are the original's, which expects images with CIFAR-10's means and deviations taken
            out.
        device: where it runs; a GPU if there is one.
    """

    def __init__(
        self,
        sde: SDE,
        network: dict[str, int],
        image_size: int,
        centered: bool,
        published: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.sde = sde
        self.shape = (network["num_channels"], image_size, image_size)
        self.model = WideResnet(**network).to(self.device)
        self.leaves = flax_leaves(self.model)
        self.scaler = get_data_scaler(centered)
        self.published = published

    def logits(self, params: Mapping[str, Tensor] | None, x: Tensor, std: Tensor) -> Tensor:
        """Logits ``[B, K]`` of noisy images ``x`` ``[B, C, H, W]`` in the network's range; None: the module's."""

        def model(x: Tensor, std: Tensor) -> Tensor:
            return self.model(x, std) if params is None else functional_call(self.model, dict(params), (x, std))

        return get_logit_fn(model)(x, std) if self.published else model(x, std)

    def gradient(self, params: Any, x: Tensor, std: Tensor, labels: Tensor) -> Tensor:
        """grad_x log p(label | x), of the shape of ``x``."""
        return get_classifier_grad_fn(partial(self.logits, params))(x, std, labels)

    def params_from_tree(self, tree: Mapping[str, Any], where: Any) -> dict[str, Tensor]:
        """Parameters on the device.

        Raises:
            CheckpointError: they belong to another network.
        """
        restored = flatten(restore_tree(self._tree(self._named()), tree, where=where))
        return {name: self._from_flax(name, restored[leaf.path]) for name, leaf in self.leaves.items()}

    def _named(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.model.named_parameters()}

    def _tree(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """Tensors by parameter name as a Flax tree of arrays."""
        flat = {
            leaf.path: np.array(values[name].cpu().permute(leaf.to_flax).numpy()).reshape(leaf.shape)
            for name, leaf in self.leaves.items()
        }
        return sort_names(unflatten(flat))

    def _from_flax(self, name: str, value: np.ndarray) -> Tensor:
        leaf = self.leaves[name]
        value = value.reshape(-1) if len(leaf.from_flax) == 1 else value
        return torch.tensor(np.ascontiguousarray(value.transpose(leaf.from_flax)), device=self.device)

    def init_state(self, adam: dict[str, Any], lr: float, ema_rate: float, seed: int) -> TrainState:
        """A fresh state; ``adam`` are the fields of :class:`score_core.torch.train_state.Adam`."""
        self.adam = Adam(**adam)
        init_params(self.model, torch.Generator(self.device).manual_seed(seed))
        key = threefry.prng_key(seed)
        ema_rate = float(np.float32(ema_rate))  # as the files keep it
        return create_state(self.model, key, adam=self.adam, lr=lr, ema_rate=ema_rate, ema_warmup=False)

    def update(self, state: TrainState, images: np.ndarray, labels: np.ndarray) -> tuple[TrainState, Tensor]:
        """One update on uint8 images ``[B, H, W, C]``; the loss stays on the device. The state changes in place."""
        x0, classes = self._inputs(images, labels)
        rng: Any = state.rng  # a key: init_state made it
        time_key, noise_key = threefry.split(threefry.fold_in(rng, state.step).to(self.device))
        count = threefry.counters(x0.shape[:1], device=self.device)
        t = sample_times(threefry.uniform(time_key, count), T=self.sde.T)
        count = threefry.counters(tuple(x0.shape), channels_last=True, device=self.device)
        z = threefry.normal(noise_key, count)
        state.optimizer.zero_grad(set_to_none=True)
        loss = classification_loss(self.sde, partial(self.logits, None), x0, classes, t, z)[0].mean()
        loss.backward()
        self.adam.update(state)
        state.step += 1
        state.average()
        return state, loss.detach()

    def _inputs(self, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Images in the network's range, channels first, and their classes, on the device."""
        pixels = torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2).contiguous()
        return self.scaler(to_float(pixels)), torch.as_tensor(labels, device=self.device)

    def params_to_tree(self, state: TrainState) -> dict[str, Any]:
        """The averaged parameters on the host."""
        return self._tree(state.params_ema)

    def state_to_tree(self, state: TrainState) -> dict[str, Any]:
        """Everything, on the host; the layout of :func:`score_core.jax.training.state_to_tree`."""
        named = self._named()
        states = {}
        for theirs, ours in _MOMENTS.items():
            # Before the first update, and where nothing is trained, there are none.
            moments = {
                name: state.optimizer.state.get(leaf.parameter, {}).get(ours, torch.zeros_like(named[name]))
                for name, leaf in self.leaves.items()
            }
            states |= {f"{path}/{theirs}": value for path, value in flatten(self._tree(moments)).items()}
        return {
            "step": np.int32(state.step),
            "optimizer": {
                "target": self._tree(named),
                "state": {"step": np.int32(state.step), "param_states": sort_names(unflatten(states))},
            },
            "lr": np.float32(state.lr),
            "model_state": {},
            "ema_rate": np.float32(state.ema_rate),
            "params_ema": self._tree(state.params_ema),
            "rng": state.rng.numpy().view(np.uint32),  # type: ignore[union-attr]
        }

    def state_from_tree(self, tree: dict[str, Any], state: TrainState, where: Any) -> TrainState:
        """The inverse, into ``state``.

        Raises:
            CheckpointError: it belongs to another network.
        """
        return state_from_flax(tree, state, where=where)

    @torch.inference_mode()
    def measure(
        self, params: Any, images: np.ndarray, labels: np.ndarray, index: np.ndarray, times: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy in nats and correctness, each ``[K, B]``, of uint8 images at the times ``[K]``.

        Arguments:
            index: the images' numbers, of which their noise is a function.
        """
        x0, classes = self._inputs(images, labels)
        noise = PerSampleNoise(
            threefry.prng_key(seed, self.device), torch.as_tensor(index, device=self.device), self.shape
        )
        times_ = torch.as_tensor(times, dtype=torch.float32, device=self.device)
        rows: Iterable[tuple[Tensor, Tensor]] = [
            classification_loss(
                self.sde, partial(self.logits, params), x0, classes, t.expand(len(x0)), noise.measurement((), level)[1]
            )
            for level, t in enumerate(times_)
        ]
        nll, correct = (torch.stack(values).cpu().numpy() for values in zip(*rows, strict=True))
        return nll, correct
