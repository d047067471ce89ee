"""An experiment in PyTorch (see :mod:`score_sde.experiment`).

The network is one module; a state holds it and nothing is copied, so an experiment has one state at a time. Images are
NumPy ``[B, H, W, C]`` outside and tensors ``[B, C, H, W]``, in the memory layout of the former, inside.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.checkpoints.pth_format import loads_pth
from score_core.correctors import get_corrector
from score_core.errors import UsageError
from score_core.likelihood import LikelihoodResult
from score_core.predictors import get_predictor
from score_core.random import NoiseSource, Role
from score_core.sdes import get_sde
from score_core.torch import threefry
from score_core.torch.flax_state import state_from_flax, unread_parameters
from score_core.torch.likelihood import get_likelihood_fn
from score_core.torch.networks import create_model
from score_core.torch.noise import Key, LegacyNoise, PerSampleNoise, next_key, probe, uniform_like, uniform_per_sample
from score_core.torch.parallel import Parallel
from score_core.torch.sampling import Samples, Trajectory, get_ode_sampler, get_pc_sampler
from score_core.torch.train_state import original_keys
from score_core.torch.training import (
    Adam,
    LossFn,
    TrainState,
    checkpoint_activations,
    create_state,
    get_apply_fn,
    get_eval_call,
    get_loss_fn,
    get_train_call,
)
from score_sde import torch_files
from score_sde.experiment import Experiment, optimizer_settings, usage_errors

__all__ = ["Keys", "TorchExperiment"]

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Keys:
    """The keys of one evaluation by position; those of :class:`score_sde.jax_experiment.Keys`.

    Attributes:
        base: the key of the per-sample streams.
    """

    def __init__(self, seed: int) -> None:
        self.base = threefry.split(threefry.prng_key(seed + 1))[0]
        self._reached = (0, threefry.fold_in(self.base, 0))

    def at(self, position: int) -> Tensor:
        """The key that split number ``position`` hands out."""
        begin, carry = self._reached if self._reached[0] <= position else (0, threefry.fold_in(self.base, 0))
        for _ in range(position - begin):
            carry = threefry.split(carry)[0]
        self._reached = (position, carry)
        return threefry.split(carry)[1]


class TorchExperiment(Experiment):
    """A configuration with everything that PyTorch builds from it."""

    framework = "torch"
    file_format = "pth"
    real = np.float64
    make_sde = staticmethod(get_sde)

    # -- network -------------------------------------------------------------------------------------------------------

    @cached_property
    def parallel(self) -> Parallel:  # pyright: ignore[reportIncompatibleMethodOverride]  # the property, kept
        return Parallel(local=self.local)

    @cached_property
    def flavor(self) -> Any:
        """Whose numbers where the two original programs differ."""
        return self.config.model.flavor or "pytorch"

    @cached_property
    def model(self) -> torch.nn.Module:
        """The network on this process's device, fresh parameters deterministic in the seed."""
        generator = torch.Generator().manual_seed(self.config.seed)
        with usage_errors():
            model = create_model(self.config, self.flavor, generator)
        # The layout that convolutions and FIR filters are fastest in.
        model = model.to(self.parallel.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.training.checkpoint_activations:
            # The blocks: everything of the network that is made of parts.
            checkpoint_activations(model, tuple({type(child) for child in model.children() if list(child.children())}))
        if self.config.training.compile:
            model.compile()
        return model

    @cached_property
    def apply_fn(self) -> Callable[..., Tensor]:
        """``apply_fn(params, x, labels, train=False)``, see :func:`score_core.torch.training.get_apply_fn`."""
        dtype = self.config.training.dtype
        if dtype not in _PRECISIONS:
            raise UsageError(f"training.dtype is {dtype!r}; it must be 'float32' or 'bfloat16'")
        wrapped = self.parallel.wrap(self.model, find_unused_parameters=bool(self._unread))
        return get_apply_fn(wrapped, _PRECISIONS[dtype])

    @cached_property
    def _unread(self) -> set[str]:
        return unread_parameters(self.model, self.config)

    @property
    def _sample_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.image_shape
        return channels, height, width

    # -- files ---------------------------------------------------------------------------------------------------------

    def sample_folder(self, step: int) -> str:
        return f"iter_{step}"

    def round_folder(self, number: int, host: int | str) -> str:
        return f"ckpt_{number}"

    @cached_property
    def _keys_in_files(self) -> dict[str, str] | None:
        """Our names of the parameters to the original's; None where it has no such network: our own."""
        try:
            return original_keys(self.model, self.config)
        except UsageError:
            return None

    def check_file(self, data: bytes) -> Any:
        return loads_pth(data)

    def encode_state(self, state: TrainState) -> bytes:
        return torch_files.encode(state, self.config, self._keys_in_files)

    def decode_state(self, data: bytes, *, where: Any) -> TrainState:
        return torch_files.decode(data, self._fresh_state(), self._keys_in_files, where=where)

    def state_from_flax(self, tree: dict[str, Any], *, where: Any) -> TrainState:
        return state_from_flax(tree, self._fresh_state(), self._unread, where=where)

    # -- training ------------------------------------------------------------------------------------------------------

    def check_training(self) -> None:
        training, processes = self.config.training, self.parallel.process_count
        if training.accumulate < 1 or training.batch_size % (processes * training.accumulate):
            raise UsageError(
                f"training.accumulate is {training.accumulate}; {processes} processes times it must divide "
                f"training.batch_size, {training.batch_size}"
            )
        _ = self.loss_fn, self.adam  # what is wrong with their settings, before anything is written

    @cached_property
    def adam(self) -> Adam:
        with usage_errors():
            return Adam(**optimizer_settings(self.config))

    def prepare(self, images: Tensor, key: Key, first: int) -> Tensor:
        """Training input: dequantised if ``data.uniform_dequantization`` says so."""
        if self.config.data.uniform_dequantization:
            return self.dequantize(images, uniform_like(images, key, first))
        return self.scale(images)

    @cached_property
    def loss_fn(self) -> LossFn:
        with usage_errors():
            return get_loss_fn(self.sde, self.apply_fn, **self.objective_options())

    def _fresh_state(self) -> TrainState:
        # The chain of keys of the JAX program.
        rng = threefry.fold_in(threefry.split(threefry.prng_key(self.config.seed))[0], 0)
        return create_state(
            self.model,
            rng,
            adam=self.adam,
            lr=self.config.optim.lr,
            ema_rate=self.config.model.ema_rate,
            ema_warmup=self.flavor == "pytorch",
        )

    def initial_state(self) -> TrainState:
        _ = self.loss_fn  # its errors, and the parameters of process 0, before anything is written
        return self._fresh_state()

    def place(self, state: TrainState) -> TrainState:
        return state

    def to_device(self, images: np.ndarray) -> Tensor:
        return self.parallel.shard(images).movedim(-1, -3)

    @cached_property
    def train_call(self) -> Callable[[TrainState, Tensor], tuple[TrainState, Tensor]]:  # type: ignore[override]
        accumulate = self.config.training.accumulate
        return get_train_call(self.loss_fn, self.adam, self.prepare, parallel=self.parallel, accumulate=accumulate)

    @cached_property
    def _eval_call(self) -> Callable[..., tuple[Any, Tensor]]:
        return get_eval_call(self.loss_fn, self.prepare, parallel=self.parallel)

    def eval_call(self, state: TrainState, batches: Tensor) -> tuple[TrainState, Tensor]:
        state.rng, losses = self._eval_call(state.rng, state.params_ema, batches)
        return state, self.parallel.mean(losses.mean(dim=1))

    def draw_snapshot(self, state: TrainState) -> tuple[TrainState, np.ndarray]:
        key: Any
        state.rng, key = next_key(state.rng)
        images = self._samples(state.params_ema, key, 0, self.config.training.batch_size).images
        return state, self.parallel.gather(images).transpose(0, 2, 3, 1)

    def check_sum(self, state: TrainState) -> float:
        with torch.no_grad():
            total = torch.stack([(parameter * 0.0).sum() for parameter in state.model.parameters()]).sum()
        return float(total)

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
                batch_mean=self.parallel.batch_mean,
                trajectory=trajectory,
                **self.pc_options(),
                **self.few_step_options(),
            )

    @cached_property
    def sampler(self) -> Callable[[Any, NoiseSource], Samples]:
        """``sampler(params, noise)`` for either method."""
        if self.sampling_method == "pc":
            return self.pc_sampler()
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

    def _samples(self, params: Any, key: Tensor, first: int, count: int) -> Samples:
        """This process's part of the samples ``first .. first + count - 1`` of a key."""
        device = self.parallel.device
        indices = first + self.parallel.shard_range(count)
        if self.config.sampling.legacy_rng:
            # The original's stream; a seed of its own in every process.
            seed = int(key[0]) << 32 ^ int(key[1]) ^ self.parallel.process_index
            generator = torch.Generator().manual_seed(seed)
            noise: NoiseSource = LegacyNoise(generator, (len(indices), *self._sample_shape), device)
        else:
            noise = PerSampleNoise(key.to(device), indices, self._sample_shape)
        return self.sampler(params, noise)

    @cached_property
    def likelihood(self) -> Callable[[Any, Tensor, Tensor], LikelihoodResult]:
        """``likelihood(params, data, probe)``: bits/dim of dequantised data in the network's range."""
        with usage_errors():
            return get_likelihood_fn(
                self.sde, self.apply_fn, inverse_scaler=self.inverse_scaler, solver=self.likelihood_solver
            )

    def parameters(self, state: TrainState, *, ema: bool) -> Any:
        """None, which stands for the module's own; the averages are put there, so the state is used up."""
        if ema:
            with torch.no_grad():
                for name, parameter in state.model.named_parameters():
                    parameter.copy_(state.params_ema[name])
        return None

    @torch.no_grad()
    def losses(self, params: Any, position: int, images: np.ndarray) -> np.ndarray:
        key = self.keys.at(position)
        x0 = self.prepare(self.to_device(images), key.to(self.parallel.device), 0)
        # parity: the step splits the key it is given once more
        return self.loss_fn(params, threefry.split(key)[1], x0, False).cpu().numpy()

    def bits_per_dim(
        self, params: Any, position: int, images: np.ndarray, indices: np.ndarray, repeat: int
    ) -> LikelihoodResult:
        device = self.parallel.device
        key = threefry.fold_in(self.keys.base, repeat).to(device)
        numbers = self.parallel.shard(indices.astype(np.int32))
        u = uniform_per_sample(key, numbers, Role.DEQUANTIZATION, self._sample_shape)
        data = self.dequantize(self.to_device(images), u)
        if self.config.sampling.legacy_rng:
            eps = probe(threefry.split(self.keys.at(position))[1].to(device), None, tuple(data.shape), "Rademacher")
        else:
            eps = probe(key, numbers, tuple(data.shape), "Rademacher")
        result = self.likelihood(params, data, eps)
        return replace(result, bpd=result.bpd.cpu().numpy(), nats=result.nats.cpu().numpy(), nfe=int(result.nfe))

    def draw(self, params: Any, position: int, round_: int) -> tuple[np.ndarray, int]:
        legacy, batch = self.config.sampling.legacy_rng, self.config.eval.batch_size
        key, first = (self.keys.at(position), 0) if legacy else (self.keys.base, round_ * batch)
        samples = self._samples(params, key, first, batch)
        return samples.images.permute(0, 2, 3, 1).cpu().numpy(), int(samples.nfe)

    def draw_trajectory(self, params: Any, chains: int, frames: int) -> np.ndarray:
        device = self.parallel.device
        indices = torch.arange(chains, dtype=torch.int32, device=device)
        noise = PerSampleNoise(self.keys.base.to(device), indices, self._sample_shape)
        return self.pc_sampler(Trajectory(frames))(params, noise).trajectory.permute(0, 1, 3, 4, 2).cpu().numpy()
