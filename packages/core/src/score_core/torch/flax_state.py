"""A training state of the Flax wing, or of the original JAX program, as a PyTorch one.

optimizer/target                        parameters
optimizer/state/step                    Adam's count of updates
optimizer/state/param_states            Adam's moments grad_ema, grad_sq_ema of every parameter
params_ema, ema_rate                    averages and their rate
step, rng                               updates done, the loop's key
lr, model_state                         not read: the configuration has the one, the other is empty
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten, restore_tree, unflatten
from score_core.errors import UsageError
from score_core.torch.networks.flax_tree import Leaf, flax_leaves
from score_core.torch.train_state import TrainState

__all__ = ["state_from_flax", "unread_parameters"]

_MOMENTS = {"grad_ema": "exp_avg", "grad_sq_ema": "exp_avg_sq"}


def unread_parameters(model: torch.nn.Module, config: Any) -> set[str]:
    """The names of parameters of ``model`` that its output does not depend on, which Flax does not have.

    The original PyTorch program's networks without conditioning own Dense layers that nothing calls.
    """
    try:
        read = {leaf.name.jax_path for leaf in torch_leaves(config) if leaf.name}
    except UsageError:  # a network without a counterpart there
        return set()
    return {name for name, leaf in flax_leaves(model).items() if leaf.path not in read}


def state_from_flax(
    tree: Mapping[str, Any], state: TrainState, unread: Collection[str] = (), *, where: Any = "checkpoint"
) -> TrainState:
    """Fills ``state`` from the tree of a Flax checkpoint.

    Arguments:
        tree: nested mapping of arrays (the module's list).
        state: a state of the same network, which is changed in place and returned. Its averages keep their kind of
            rate, constant or growing with the updates.
        unread: names of parameters that Flax does not have; they stay as they are.
        where: the file, for messages.

    Raises:
        CheckpointError: a name is missing or unknown or a shape differs; nothing is changed then.
    """
    leaves = {name: leaf for name, leaf in flax_leaves(state.model).items() if name not in unread}
    whole = restore_tree(_target(leaves), tree, where=where)
    params, averages = flatten(whole["optimizer"]["target"]), flatten(whole["params_ema"])
    adam, moments = whole["optimizer"]["state"], flatten(whole["optimizer"]["state"]["param_states"])
    count = torch.tensor(float(adam["step"]))
    state.optimizer.state.clear()
    with torch.no_grad():
        for name, leaf in leaves.items():
            leaf.parameter.copy_(_from_flax(leaf, params[leaf.path]))
            if name in state.shadow:
                state.shadow[name].copy_(_from_flax(leaf, averages[leaf.path]))
            if leaf.parameter.requires_grad and adam["step"]:
                values = {ours: _from_flax(leaf, moments[f"{leaf.path}/{theirs}"]) for theirs, ours in _MOMENTS.items()}
                state.optimizer.state[leaf.parameter] = {
                    "step": count.to(leaf.parameter.device, copy=True),
                    **{ours: torch.empty_like(leaf.parameter).copy_(value) for ours, value in values.items()},
                }
    state.step = int(whole["step"])
    state.ema_rate = float(whole["ema_rate"])
    state.num_updates = None if state.num_updates is None else state.step
    state.rng = torch.from_numpy(np.array(whole["rng"]).view(np.int32))
    return state


def _target(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """Names and shapes of the tree; no memory is taken."""
    number, decimal = np.empty((), np.int32), np.empty((), np.float32)
    blank = {leaf.path: np.broadcast_to(decimal, leaf.shape) for leaf in leaves.values()}
    params = unflatten(blank)
    moments = unflatten({f"{path}/{name}": value for path, value in blank.items() for name in _MOMENTS})
    return {
        "step": number,
        "optimizer": {"target": params, "state": {"step": number, "param_states": moments}},
        "lr": decimal,
        "model_state": {},
        "ema_rate": decimal,
        "params_ema": params,
        "rng": np.empty(2, np.uint32),
    }


def _from_flax(leaf: Leaf, value: np.ndarray) -> torch.Tensor:
    value = value.reshape(-1) if len(leaf.from_flax) == 1 else value
    return torch.from_numpy(np.ascontiguousarray(value.transpose(leaf.from_flax)))
