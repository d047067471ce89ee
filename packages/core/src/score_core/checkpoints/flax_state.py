"""Flax checkpoints (msgpack): the JAX program's ``checkpoint_N``, or a parameter tree alone."""

from typing import Any

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.training_state import (
    check_names,
    flavor_matters,
    flavor_of,
    map_sets,
    require_state,
    reshape_norms,
)
from score_core.checkpoints.tree import sort_names

__all__ = ["read_flax", "recognises_flax", "write_flax"]

_ORDER = ("step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng")


def recognises_flax(data: bytes) -> bool:
    """Whether it begins as a map of msgpack."""
    return len(data) > 1 and (0x81 <= data[0] <= 0x8F or data[0] == 0xDE)


def read_flax(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """The training state, or the weights, of a msgpack file."""
    tree = require_state(msgpack_format.loads(data, where=where), where)
    if config is not None:
        check_names(tree, config, report, where)
    return tree


def write_flax(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    """The file; a RefineNet of the PyTorch flavor carries a mark in ``model_state``, which is empty otherwise."""
    meta = tree["meta"]
    if meta.get("norms") == "new":
        tree = map_sets(tree, lambda params: reshape_norms(params, old=False))
    marked = flavor_matters(config) and flavor_of(tree) == "pytorch"
    if "params" in tree:
        if marked:
            report.notes.append("a tree alone cannot say that these are parameters of the PyTorch program's network")
        return msgpack_format.dumps(sort_names(tree["params"]))
    state = tree["optimizer"]["state"]
    if marked:
        report.notes.append(
            "model_state/flavor says that these are parameters of the PyTorch network, with which the JAX program "
            "would compute other numbers, or none: use them with --framework torch"
        )
    absent = [name for name in _ORDER if name not in tree and name not in ("model_state",)]
    if absent:
        raise CheckpointError(f"the training state lacks {', '.join(absent)}, which a Flax checkpoint has.")
    whole = {
        **tree,
        "model_state": {"flavor": "pytorch"} if marked else {},
        "optimizer": {
            "target": sort_names(tree["optimizer"]["target"]),
            "state": {"step": state["step"], "param_states": sort_names(state["param_states"])},
        },
        "params_ema": sort_names(tree["params_ema"]),
    }
    return msgpack_format.dumps({name: whole[name] for name in _ORDER})
