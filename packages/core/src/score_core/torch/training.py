r"""The training step in PyTorch: loss, Adam with warm-up and clipping, EMA.

One step from parameters :math:`\theta`, in this order (Song et al. 2021, appendix H; the original's optimiser):

1. gradient :math:`g` of the mean loss over the global batch;
2. :math:`\eta = \mathrm{lr} \cdot \min(\mathrm{step} / \mathrm{warmup}, 1)`, ``step`` counted before this update;
3. :math:`g \leftarrow g \cdot \min(c / (\|g\| + 10^{-6}), 1)` if the clipping norm ``c`` is not negative;
4. Adam on :math:`g + \lambda \theta`: :math:`\theta \leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)`;
5. EMA of the parameters with the rate :math:`\min(\mathrm{rate}, (1 + n) / (10 + n))` in update :math:`n`;
   ``step += 1``.

The state changes in place; the functions return it for the sake of one interface in both wings. Random numbers come
from keys, one split a step, and are those of the JAX wing: image ``i`` of the global batch gets the same time and noise
on any number of processes and in any number of accumulated parts. (Dropout masks are PyTorch's own, seeded from the
same keys, but not independent of how the batch is divided.)
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from score_core.objectives import ddpm_loss, sample_times, sde_loss, smld_loss
from score_core.parameterization import get_score_fn
from score_core.random import Role
from score_core.sdes import SDE, VESDE, VPSDE
from score_core.torch import threefry
from score_core.torch.noise import Key, next_key
from score_core.torch.parallel import Parallel
from score_core.torch.train_state import Adam, Optimizer, TrainState, create_state, state_from_tree, state_to_tree

__all__ = [
    "Adam",
    "Optimizer",
    "TrainState",
    "checkpoint_activations",
    "create_state",
    "get_apply_fn",
    "get_eval_call",
    "get_loss_fn",
    "get_train_call",
    "get_update_fn",
    "state_from_tree",
    "state_to_tree",
]

TrainApplyFn = Callable[..., Tensor]
"""``apply_fn(params, x, labels, train=False) -> out``; with ``train`` dropout is on."""
LossFn = Callable[..., Tensor]
"""``losses(params, key, x0 [B, C, H, W], train, first=0) -> [B]``; or ``[B, k]``, of which the first is minimised and
all are reported."""
Prepare = Callable[[Tensor, Key, int], Tensor]
"""``prepare(images uint8, key, first) -> x0``: dequantisation (if any; :func:`score_core.torch.noise.uniform_like`) and
scaling to the network's range. ``first`` is the place of ``images[0]`` in the global batch."""
Params: TypeAlias = Mapping[str, Tensor] | None
"""Parameters by name; None stands for those of the module itself, which are the ones that are trained."""

UpdateFn = Callable[[tuple[Key, "TrainState"], Tensor], tuple[tuple[Key, "TrainState"], Tensor]]


def get_apply_fn(model: nn.Module, autocast: torch.dtype | None = None) -> TrainApplyFn:
    """The network as a function of its parameters.

    Arguments:
        model: the module, perhaps wrapped by :meth:`score_core.torch.parallel.Parallel.wrap`.
        autocast: ``torch.bfloat16`` for mixed precision; None for the parameters' own.

    Returns:
        ``apply_fn(params, x, labels, train=False)``, whose output has the type of ``x``; ``params`` None (the module's)
        or a mapping such as :meth:`TrainState.params_ema`.
    """
    own = model.module if isinstance(model, DistributedDataParallel) else model

    def apply_fn(params: Params, x: Tensor, labels: Tensor, train: bool = False) -> Tensor:
        if model.training != train:
            model.train(train)
        with torch.autocast(x.device.type, autocast) if autocast else nullcontext():
            # Only what is trained goes through the wrapper, which adds up gradients.
            if params is None:
                out = model(x, labels) if train else own(x, labels)
            else:
                out = functional_call(own, dict(params), (x, labels))
        return out.to(x.dtype)

    return apply_fn


def checkpoint_activations(model: nn.Module, blocks: type[nn.Module] | tuple[type[nn.Module], ...]) -> None:
    """Makes the ``blocks`` within ``model`` recompute their inner values in the backward pass: less memory, more time.

    Outputs, gradients and dropout masks are the same. Training mode only: elsewhere the parameters may be others than
    the module's (:func:`get_apply_fn`), which the backward pass would not know.
    """
    for module in model.modules():
        if isinstance(module, blocks):
            module.forward = partial(_checkpointed, module, module.forward)


def _checkpointed(module: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False) if module.training else forward(*inputs)


class _Draws:
    """The random numbers of one loss: time or label first, then noise, then dropout."""

    def __init__(self, key: Key, x0: Tensor, first: int) -> None:
        self.x0, self.first = x0, first
        self.source: dict[str, Any] = {}
        if isinstance(key, torch.Generator):
            self.source = {"generator": key, "device": key.device}
        else:
            # parity: the chain of keys of the JAX program
            key, time_key = threefry.split(key)
            key, noise_key = threefry.split(key)
            dropout_key = threefry.split(key)[1]
            self.time_key, self.noise_key = time_key.to(x0.device), noise_key.to(x0.device)
            self.dropout_seed = int(dropout_key[0]) << 32 ^ int(dropout_key[1])

    def _count(self) -> Tensor:
        return threefry.counters(self.x0.shape[:1], first=self.first, device=self.x0.device)

    def uniform(self) -> Tensor:
        """``U[0, 1)``, ``[B]``."""
        if self.source:
            return torch.rand(len(self.x0), **self.source).to(self.x0.device)
        return threefry.uniform(self.time_key, self._count())

    def labels(self, n: int) -> Tensor:
        """Integers in ``0 ... n - 1``, ``[B]``."""
        if self.source:
            return torch.randint(0, n, (len(self.x0),), **self.source).to(self.x0.device)
        return threefry.randint(self.time_key, self._count(), n)

    def normal(self) -> Tensor:
        """``N(0, 1)`` of the shape of the batch."""
        if self.source:
            return torch.randn(self.x0.shape, **self.source).to(self.x0.device)
        shape, start = tuple(self.x0.shape), self.first * self.x0[0].numel()
        return threefry.normal(
            self.noise_key, threefry.counters(shape, first=start, channels_last=True, device=self.x0.device)
        )

    def seed_dropout(self) -> None:
        """Dropout draws from PyTorch's default generators, as it does in the original."""
        if not self.source:
            torch.manual_seed(self.dropout_seed ^ self.first)


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

    Arguments:
        sde: the forward SDE.
        apply_fn: the network.
        continuous: time is continuous (equation 7); otherwise the discrete losses of SMLD (VE) and DDPM (VP).
        reduce_mean: mean over the pixels instead of half their sum.
        likelihood_weighting: weight ``g(t)^2``.
        eps: the smallest time.

    Returns:
        ``losses(params, key, x0 [B, C, H, W], train, first=0) -> [B]``, one value per image; training minimises their
        mean. ``first`` is the place of ``x0[0]`` in the global batch for which ``key`` stands; with a generator as the
        key, the batch is drawn as it comes.

    Raises:
        ValueError: for likelihood weighting or the sub-VP SDE with discrete noise levels.
    """
    if not continuous and likelihood_weighting:
        raise ValueError("training.likelihood_weighting needs training.continuous = True")
    if not continuous and not isinstance(sde, (VESDE, VPSDE)):
        raise ValueError(f"training.continuous = False needs the VE or the VP SDE, not {type(sde).__name__}")

    def loss_fn(params: Params, key: Key, x0: Tensor, train: bool, first: int = 0) -> Tensor:
        draws = _Draws(key, x0, first)

        def model_fn(x: Tensor, labels: Tensor) -> Tensor:
            if train:
                draws.seed_dropout()
            return apply_fn(params, x, labels, train=train)

        if continuous:
            # parity: the smallest time is 1e-5 for every SDE, not the sampler's eps
            t = sample_times(draws.uniform(), eps, sde.T)
            score_fn = get_score_fn(sde, model_fn, True)
            return sde_loss(
                sde,
                score_fn,
                x0,
                t,
                draws.normal(),
                likelihood_weighting=likelihood_weighting,
                reduce_mean=reduce_mean,
            )
        labels = draws.labels(sde.N)
        objective: Any = smld_loss if isinstance(sde, VESDE) else ddpm_loss
        return objective(sde, model_fn, x0, labels, draws.normal(), reduce_mean=reduce_mean)

    return loss_fn


def _data_key(step_key: Key) -> Key:
    """A key beside the original's chain: there the data pipeline drew its own numbers, without a seed."""
    if isinstance(step_key, torch.Generator):
        return step_key
    return threefry.fold_in(step_key, int(Role.DEQUANTIZATION))


def _to(key: Key, device: torch.device) -> Key:
    return key.to(device) if isinstance(key, Tensor) else key


def get_update_fn(
    loss_fn: LossFn, adam: Optimizer, prepare: Prepare, *, parallel: Parallel | None = None, accumulate: int = 1
) -> UpdateFn:
    """Builds one update (the module's list).

    Arguments:
        loss_fn: from :func:`get_loss_fn`.
        adam: the optimiser.
        prepare: uint8 images to network input, on the device.
        parallel: the processes among which each batch is shared; None for one.
        accumulate: in how many parts, one after the other, a process goes through its share of a batch.

    Returns:
        ``update((key, state), images [B, C, H, W]) -> ((key, state), loss)``: ``images`` is this process's share of the
        batch, ``loss`` (a scalar on the device) the mean over the whole batch; the key is split once.

    Raises:
        ValueError: in an update, if the share cannot be divided into ``accumulate`` parts.
    """

    def update(carry: tuple[Key, TrainState], images: Tensor) -> tuple[tuple[Key, TrainState], Tensor]:
        key, state = carry
        key, step_key = next_key(key)
        if len(images) % accumulate:
            raise ValueError(f"{len(images)} images cannot be accumulated in {accumulate} equal parts")
        part = len(images) // accumulate
        first = parallel.process_index * len(images) if parallel else 0
        data_key = _to(_data_key(step_key), images.device)
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=images.device)
        for n, batch in enumerate(images.split(part)):
            begin = first + n * part
            x0 = prepare(batch, data_key, begin)
            # Gradients are added up over the processes after the last part only.
            with parallel.no_sync() if parallel and n < accumulate - 1 else nullcontext():
                loss = loss_fn(None, step_key, x0, True, begin).mean(0) / accumulate
                (loss if loss.ndim == 0 else loss[0]).backward()
            total = total + loss.detach()
        adam.update(state)
        state.step += 1
        state.average()
        return (key, state), parallel.mean(total) if parallel else total

    return update


def get_train_call(
    loss_fn: LossFn, adam: Optimizer, prepare: Prepare, *, parallel: Parallel | None = None, accumulate: int = 1
) -> Callable[[TrainState, Tensor], tuple[TrainState, Tensor]]:
    """Builds one call of the training loop: ``n`` updates.

    Arguments:
        loss_fn, adam, prepare, parallel, accumulate: as for :func:`get_update_fn`.

    Returns:
        ``call(state, batches [n, B, C, H, W] uint8) -> (state, losses [n])``; the state is the one that was handed in.
    """
    update = get_update_fn(loss_fn, adam, prepare, parallel=parallel, accumulate=accumulate)

    def call(state: TrainState, batches: Tensor) -> tuple[TrainState, Tensor]:
        state.rng, key = next_key(state.rng)
        losses = []
        for images in batches:
            (key, state), loss = update((key, state), images)
            losses.append(loss)
        return state, torch.stack(losses)

    return call


def get_eval_call(
    loss_fn: LossFn, prepare: Prepare, *, parallel: Parallel | None = None
) -> Callable[[Key, Params, Tensor], tuple[Key, Tensor]]:
    """Builds the held-out loss with the given (EMA) parameters.

    Returns:
        ``call(rng, params, batches [n, B, C, H, W] uint8) -> (rng, losses [n, B])``: this process's share of the
        batches, and the losses of these images.
    """

    @torch.no_grad()
    def call(rng: Key, params: Params, batches: Tensor) -> tuple[Key, Tensor]:
        rng, key = next_key(rng)
        losses = []
        for images in batches:
            key, step_key = next_key(key)
            first = parallel.process_index * len(images) if parallel else 0
            x0 = prepare(images, _to(_data_key(step_key), images.device), first)
            losses.append(loss_fn(params, step_key, x0, False, first))
        return rng, torch.stack(losses)

    return call
