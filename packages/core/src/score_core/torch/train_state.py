"""What training changes, the optimiser's rules, and both in the layout of the original's ``.pth`` files.

optimizer   Adam's ``state_dict()``; parameters numbered in the original's order, those that are not trained included
model       ``module.<name>`` to tensor, buffers first
ema         decay, num_updates, shadow_params: a list without the parameters that are not trained
step        updates done
rng         ours: the key of the next call, so that a resumed run draws what the uninterrupted one would have drawn.
            The original reads its four entries by name and ignores it
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.torch_names import torch_leaves
from score_core.torch.ema import ema_update, warmed_rate
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.noise import Key

__all__ = ["Adam", "Optimizer", "TrainState", "create_state", "original_keys", "state_from_tree", "state_to_tree"]

_PREFIX = "module."
_SHOWN = 5
_MOMENTS = ("exp_avg", "exp_avg_sq")
_HYPERPARAMETERS = ("betas", "eps", "weight_decay")


class Adam(NamedTuple):
    """Hyper-parameters of the optimiser (``config.optim``); a negative ``grad_clip`` switches clipping off."""

    beta1: float
    eps: float
    warmup: int
    grad_clip: float
    weight_decay: float

    def transform(self, params: Iterator[nn.Parameter], lr: float) -> torch.optim.Adam:
        """The optimiser of ``params``; weight decay is added to the gradient."""
        # parity: beta2 is fixed
        return torch.optim.Adam(
            params, lr=lr, betas=(self.beta1, 0.999), eps=self.eps, weight_decay=self.weight_decay, fused=True
        )

    def update(self, state: "TrainState") -> None:
        """The parameters' step, from the gradients that they hold (steps 2 to 4 of the module's list)."""
        for group in state.optimizer.param_groups:
            # parity: the counter before the increment, so the first update has a learning rate of zero
            group["lr"] = state.lr * (min(state.step / self.warmup, 1.0) if self.warmup > 0 else 1.0)
        if self.grad_clip >= 0:
            nn.utils.clip_grad_norm_(state.model.parameters(), self.grad_clip)
        state.optimizer.step()


class Optimizer(Protocol):
    """What turns gradients into new parameters; :class:`Adam` is one."""

    def update(self, state: "TrainState") -> None:
        """The parameters' step, from the gradients that they hold."""
        ...


@dataclass
class TrainState:
    """Everything that training changes.

    Attributes:
        step: updates done.
        model: the network; its parameters are the trained ones.
        shadow: the moving average of each parameter that is trained, by name.
        optimizer: Adam over all parameters.
        rng: the loop's key, int32 ``[2]``, on the host; or a generator, for the original's stream.
        lr: the learning rate after warm-up.
        ema_rate: the highest rate of the moving average.
        num_updates: averages taken, on which the rate depends; None for the constant rate of the JAX program.
    """

    step: int
    model: nn.Module
    shadow: dict[str, Tensor]
    optimizer: torch.optim.Adam
    rng: Key
    lr: float
    ema_rate: float
    num_updates: int | None

    @property
    def params_ema(self) -> dict[str, Tensor]:
        """The averaged parameters by name; those that are not trained are the module's."""
        return {name: self.shadow.get(name, value.detach()) for name, value in self.model.named_parameters()}

    def average(self) -> None:
        """One step of the moving average (step 5 of the module's list)."""
        rate = self.ema_rate
        if self.num_updates is not None:
            self.num_updates += 1
            rate = warmed_rate(rate, self.num_updates)
        named = dict(self.model.named_parameters())
        ema_update(self.shadow.values(), (named[name].detach() for name in self.shadow), rate)


def create_state(
    model: nn.Module, rng: Key, *, adam: Adam, lr: float, ema_rate: float, ema_warmup: bool = True
) -> TrainState:
    """A fresh state; the moving average starts at the initial parameters.

    Arguments:
        model: the network, on its device, not wrapped.
        rng: a key or, for the original's stream, a generator.
        adam: the optimiser. lr: the learning rate after warm-up.
        ema_rate: the highest rate of the moving average.
        ema_warmup: the PyTorch program's rate, which grows with the updates; False: the JAX program's, which does not.
    """
    return TrainState(
        step=0,
        model=model,
        shadow={name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad},
        optimizer=adam.transform(model.parameters(), lr),
        rng=rng,
        lr=lr,
        ema_rate=ema_rate,
        num_updates=0 if ema_warmup else None,
    )


def original_keys(model: nn.Module, config: Any) -> dict[str, str]:
    """The names of the parameters of ``model`` to the original's keys (without ``module.``), in the original's order.

    Arguments:
        model: made from ``config`` with the flavor "pytorch".
        config: with the sections ``model`` and ``data``.

    Raises:
        UsageError: the network is neither ``ncsnpp`` nor ``ddpm``.
    """
    ours = {leaf.path: name for name, leaf in flax_leaves(model).items()}
    modules: dict[str, str] = {}
    keys = {}
    for leaf in torch_leaves(config):
        module = ".".join(leaf.key.split(".")[:2])  # all_modules.<number>
        if leaf.name:
            name = ours[leaf.name.jax_path]
            modules[module] = name.partition(".")[0]
        else:  # a layer that nothing reads, which Flax does not have
            name = modules[module] + leaf.key.removeprefix(module)
        keys[name] = leaf.key
    return keys


def state_to_tree(
    state: TrainState, keys: Mapping[str, str] | None = None, buffers: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """The state in the layout of the original's files (see the module's list), for ``torch.save``.

    Arguments:
        state: the state; its tensors are shared, not copied.
        keys: our names of the parameters to the original's, in its order (:func:`original_keys`); None: our own names
            and order.
        buffers: further entries of ``model`` by key, such as the original's noise levels.
    """
    keys = keys or {name: name for name, _ in state.model.named_parameters()}
    named = dict(state.model.named_parameters())
    (group,) = state.optimizer.param_groups
    moments = {number: state.optimizer.state.get(named[name]) for number, name in enumerate(keys)}
    model = {_PREFIX + key: value for key, value in (buffers or {}).items()}
    model |= {_PREFIX + key: named[name].detach() for name, key in keys.items()}
    tree: dict[str, Any] = {
        "optimizer": {
            # A Python number where PyTorch now counts in a tensor: old and new versions read that.
            "state": {number: {**value, "step": int(value["step"])} for number, value in moments.items() if value},
            "param_groups": [
                {"lr": float(group["lr"])}
                | {name: group[name] for name in _HYPERPARAMETERS}
                | {"amsgrad": False, "params": list(range(len(keys)))}
            ],
        },
        "model": OrderedDict(model),
        "ema": {
            "decay": state.ema_rate,
            "num_updates": state.num_updates,
            "shadow_params": [state.shadow[name] for name in keys if name in state.shadow],
        },
        "step": state.step,
    }
    if isinstance(state.rng, Tensor):
        tree["rng"] = state.rng.cpu()
    return tree


def state_from_tree(
    tree: Mapping[str, Any], state: TrainState, keys: Mapping[str, str] | None = None, buffers: tuple[str, ...] = ()
) -> TrainState:
    """Fills ``state`` from a file of the original or of :func:`state_to_tree`; the inverse of the latter.

    Steps, moments, averages, the averages' rate and the optimiser's hyper-parameters become the file's, as in the
    original; the learning rate after warm-up stays the configuration's. A file without ``rng`` leaves it as it is.

    Arguments:
        tree: the contents, arrays (:func:`score_core.checkpoints.pth_format.load_pth`) or tensors.
        state: a state of the same network, which is changed in place and returned.
        keys: as for :func:`state_to_tree`.
        buffers: keys of ``model`` that may be there and are not read.

    Raises:
        CheckpointError: an entry is missing, unknown or of another shape; nothing is changed then.
    """
    keys = keys or {name: name for name, _ in state.model.named_parameters()}
    named = dict(state.model.named_parameters())
    if missing := [name for name in ("optimizer", "model", "ema", "step") if name not in tree]:
        raise CheckpointError(f"the checkpoint has no {', '.join(missing)}: name a file that training wrote")
    stored = {key.removeprefix(_PREFIX): value for key, value in tree["model"].items()}
    shadows, averaged = tree["ema"]["shadow_params"], [name for name in keys if name in state.shadow]
    moments = {list(keys)[int(number)]: value for number, value in tree["optimizer"]["state"].items()}
    problems = [f"missing: {key}" for key in keys.values() if key not in stored]
    problems += [f"unknown: {key}" for key in stored if key not in {*keys.values(), *buffers}]
    if len(shadows) != len(averaged):
        problems.append(f"{len(shadows)} averaged parameters, expected {len(averaged)}")
    arrays = [(key, stored[key], named[name]) for name, key in keys.items() if key in stored]
    arrays += [(f"average of {keys[name]}", value, named[name]) for name, value in zip(averaged, shadows, strict=False)]
    for name, value in moments.items():
        arrays += [(f"{moment} of {keys[name]}", value[moment], named[name]) for moment in _MOMENTS]
    for what, value, parameter in arrays:
        if tuple(value.shape) != tuple(parameter.shape):
            problems.append(f"{what}: shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"the checkpoint does not fit {type(state.model).__name__} ({'; '.join(problems[:_SHOWN])}{more}): "
            "use the configuration it was trained with"
        )
    with torch.no_grad():
        for name, key in keys.items():
            named[name].copy_(_tensor(stored[key]))
        for name, value in zip(averaged, shadows, strict=True):
            state.shadow[name].copy_(_tensor(value))
    _restore_optimizer(state.optimizer, tree["optimizer"]["param_groups"][0], moments, named)
    state.step = int(tree["step"])
    state.ema_rate = float(tree["ema"]["decay"])
    updates = tree["ema"]["num_updates"]
    state.num_updates = None if updates is None else int(updates)
    if "rng" in tree:
        state.rng = _tensor(tree["rng"]).to(torch.int32)
    return state


def _restore_optimizer(
    optimizer: torch.optim.Adam, stored: Mapping[str, Any], moments: Mapping[str, Any], named: Mapping[str, Tensor]
) -> None:
    (group,) = optimizer.param_groups
    group |= {name: stored[name] for name in _HYPERPARAMETERS} | {"lr": float(stored["lr"])}
    group["betas"] = tuple(group["betas"])
    optimizer.state.clear()
    for name, value in moments.items():
        parameter = named[name]
        optimizer.state[parameter] = {
            "step": torch.tensor(float(value["step"]), device=parameter.device),
            # In the memory layout of the parameter, on which the fused optimiser relies.
            **{moment: torch.empty_like(parameter).copy_(_tensor(value[moment])) for moment in _MOMENTS},
        }


def _tensor(value: Any) -> Tensor:
    """A copy of an array or tensor."""
    return value.clone() if isinstance(value, Tensor) else torch.tensor(np.asarray(value))
