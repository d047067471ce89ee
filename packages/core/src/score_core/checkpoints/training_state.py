"""The tree of the family ``score_sde``, which its formats read and write.

A training state has the names of the original Flax program's checkpoints; a set of weights alone has one entry:

    step    optimizer/target/*    optimizer/state/step    optimizer/state/param_states/*/{grad_ema, grad_sq_ema}
    lr      model_state    ema_rate    params_ema/*    rng    meta

    params/*    meta

``params``, ``target`` and ``params_ema`` are Flax parameter trees, normalisations ``[1, 1, 1, C]``. ``meta`` never
reaches a file as it is:

    flavor    whose network it is where the two programs differ, "jax" or "pytorch"
    norms     how GroupNorm is to be written: "old" ``[1, 1, 1, C]``, "new" ``[C]``
    module    whether PyTorch keys are to be written with ``module.``
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.refine_names import NETWORKS
from score_core.checkpoints.torch_conversion import Comparison, compare_tree
from score_core.checkpoints.tree import flatten, sort_names, unflatten
from score_core.errors import UsageError

__all__ = [
    "FLAVOR",
    "MOMENTS",
    "check_names",
    "enter_comparisons",
    "flavor_matters",
    "flavor_of",
    "map_sets",
    "number",
    "one_set",
    "parameter_sets",
    "require_complete",
    "require_state",
    "reshape_norms",
    "whole_state",
]

MOMENTS = {"grad_ema": "exp_avg", "grad_sq_ema": "exp_avg_sq"}
"""Adam's moments in Flax and in PyTorch."""
_NAMES = ("step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng")
FLAVOR = "flavor"


def flavor_matters(config: Any) -> bool:
    """Whether the two programs compute different things with the network of ``config`` (NCSN and NCSNv2)."""
    return config is not None and config.model.name.lower() in NETWORKS


def flavor_of(tree: Mapping[str, Any]) -> str:
    """Whose network the parameters are of."""
    return tree["meta"][FLAVOR]


def require_state(tree: Any, where: Any, flavor: str = "jax") -> dict[str, Any]:
    """A training state or a set of weights, from what a file holds; its GroupNorms become ``[1, 1, 1, C]``.

    Raises:
        CheckpointError: it is neither.
    """
    if not isinstance(tree, Mapping) or not tree:
        raise CheckpointError(f"{where} is no training state: it holds no names. Name a checkpoint file.")
    if not {"optimizer", "params_ema", "step"} & set(tree):
        params = tree["params"] if set(tree) == {"params"} else tree
        _require_params(params, "its parameters", where)
        return {"params": _old_norms(params), "meta": {FLAVOR: flavor}}
    absent = [name for name in ("step", "optimizer", "lr", "ema_rate", "params_ema") if name not in tree]
    if not absent:
        optimizer = tree["optimizer"] if isinstance(tree["optimizer"], Mapping) else {}
        absent = [f"optimizer/{name}" for name in ("target", "state") if name not in optimizer]
        if not absent:
            state = optimizer["state"] if isinstance(optimizer["state"], Mapping) else {}
            absent = [f"optimizer/state/{name}" for name in ("step", "param_states") if name not in state]
    if absent:
        raise CheckpointError(f"{where} is no training state: it lacks {', '.join(absent)}. Name a checkpoint file.")
    made = {name: tree[name] for name in _NAMES if name in tree}
    optimizer = tree["optimizer"]
    sets = (optimizer["target"], tree["params_ema"], optimizer["state"]["param_states"])
    for params, what in zip(sets, ("optimizer/target", "params_ema", "optimizer/state/param_states"), strict=True):
        _require_params(params, what, where)
    for name in ("step", "lr", "ema_rate"):
        number(tree[name], name, where)
    number(optimizer["state"]["step"], "optimizer/state/step", where)
    made["optimizer"] = {
        "target": _old_norms(sets[0]),
        "state": {"step": optimizer["state"]["step"], "param_states": _old_norms(sets[2])},
    }
    made["params_ema"] = _old_norms(sets[1])
    mark = tree.get("model_state")
    if isinstance(mark, Mapping) and set(mark) == {FLAVOR} and mark[FLAVOR] in ("jax", "pytorch"):
        flavor, made["model_state"] = mark[FLAVOR], {}
    elif "model_state" in tree and mark != {}:
        raise CheckpointError(f"{where}: model_state is not empty, as it is in every network that can be converted.")
    return {**made, "meta": {FLAVOR: flavor}}


def _require_params(params: Any, what: str, where: Any) -> None:
    if not isinstance(params, Mapping) or not params:
        raise CheckpointError(f"{where}: {what} is empty. Name a checkpoint file.")
    for name, value in flatten(params).items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiuV":
            raise CheckpointError(f"{where}: {what}/{name} is no array of numbers. Name a checkpoint file.")


def number(value: Any, what: str, where: Any) -> float:
    """A single number of a file, whatever type it was stored as.

    Raises:
        CheckpointError: it is none.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise CheckpointError(f"{where}: {what} is not a number. Name a checkpoint file.")
    return array.reshape(()).item()


def parameter_sets(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The sets of parameters by name: ``raw`` and ``ema`` of a training state, or ``weights``."""
    if "params" in tree:
        return {"weights": tree["params"]}
    return {"raw": tree["optimizer"]["target"], "ema": tree["params_ema"]}


def check_names(tree: Mapping[str, Any], config: Any, report: Report, where: Any) -> None:
    """Enters missing and superfluous names into the report.

    Raises:
        CheckpointError: there are such, or parameters of another shape.
    """
    given = {name: (params, "") for name, params in parameter_sets(tree).items()}
    if "params" not in tree:
        flat = flatten(tree["optimizer"]["state"]["param_states"])
        for moment in MOMENTS:
            part = {k.removesuffix(f"/{moment}"): v for k, v in flat.items() if k.endswith(f"/{moment}")}
            given[moment] = unflatten(part), f"/{moment}"
        stray = [k for k in flat if k.rpartition("/")[2] not in MOMENTS]
        report.unused += [f"moments: {name}" for name in stray]
    try:
        found = {name: compare_tree(params, config, flavor_of(tree)) for name, (params, _) in given.items()}
    except UsageError:
        report.notes.append(f"names were not compared: there is no list of them for model.name {config.model.name!r}")
        return
    enter_comparisons(found, report)
    require_complete(found, report, where)


def enter_comparisons(found: Mapping[str, Comparison], report: Report) -> None:
    """What comparisons found missing and superfluous, into the report."""
    for name, comparison in found.items():
        report.missing += [f"{name}: {entry}" for entry in comparison.missing]
        report.missing += [f"{name}: {entry}" for entry in comparison.wrong_shape]
        report.unused += [f"{name}: {entry}" for entry in comparison.unused]


def require_complete(found: Mapping[str, Comparison], report: Report, where: Any) -> None:
    """Raises CheckpointError unless every comparison is complete and nothing is unused."""
    for name, comparison in found.items():
        if not comparison.complete:
            raise CheckpointError(
                f"{where} is not of the configured network ({name}: {comparison.summary()}): take the configuration "
                "it was made with. score-convert --identify may find it."
            )
    if report.unused:
        raise CheckpointError(f"{where} holds names that the network does not have: {', '.join(report.unused[:5])}.")


def one_set(tree: Mapping[str, Any], which: str) -> dict[str, Any]:
    """The weights alone: ``which`` is "raw" or "ema". A set of weights stays what it is."""
    sets = parameter_sets(tree)
    return {"params": sets.get(which, next(iter(sets.values()))), "meta": tree["meta"]}


def whole_state(tree: Mapping[str, Any], config: Any, report: Report) -> dict[str, Any]:
    """A training state; around a set of weights, one of step 0 without moments.

    Raises:
        UsageError: that needs the learning rate and the rate of averages of a configuration.
    """
    if "params" not in tree:
        return dict(tree)
    if config is None:
        raise UsageError("the file holds weights alone; a training state needs --config NAME, or give --weights raw.")
    report.notes.append("the file holds one set of weights: raw and averaged ones are the same; step 0, no moments")
    params = tree["params"]
    zeros = {f"{name}/{moment}": np.zeros_like(value) for name, value in flatten(params).items() for moment in MOMENTS}
    return {
        "step": np.int32(0),
        "optimizer": {"target": params, "state": {"step": np.int32(0), "param_states": sort_names(unflatten(zeros))}},
        "lr": np.float32(config.optim.lr),
        "model_state": {},
        "ema_rate": np.float32(config.model.ema_rate),
        "params_ema": params,
        "rng": np.zeros(2, np.uint32),
        "meta": tree["meta"],
    }


def map_sets(tree: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The tree with ``change`` applied to its sets of parameters and moments."""
    if "params" in tree:
        return {**tree, "params": change(tree["params"])}
    optimizer = tree["optimizer"]
    state = {**optimizer["state"], "param_states": change(optimizer["state"]["param_states"])}
    return {
        **tree,
        "optimizer": {"target": change(optimizer["target"]), "state": state},
        "params_ema": change(tree["params_ema"]),
    }


# GroupNorms of the networks, and of the classifier, whose names are its own.
_GROUP_NORMS = ("GroupNorm_", "init_bn", "bn_2", "pre-pool-bn")


def _is_group_norm(path: str) -> bool:
    return any(part.startswith(_GROUP_NORMS) for part in path.split("/"))


def _old_norms(params: Mapping[str, Any]) -> dict[str, Any]:
    return reshape_norms(params, old=True)


def reshape_norms(params: Mapping[str, Any], *, old: bool) -> dict[str, Any]:
    """GroupNorm's parameters as ``[1, 1, 1, C]`` (Flax up to 0.3) or ``[C]`` (later); everything else as it is."""
    flat = flatten(params)
    for path, value in flat.items():
        if _is_group_norm(path) and isinstance(value, np.ndarray):
            if old and value.ndim == 1:
                flat[path] = value.reshape(1, 1, 1, -1)
            elif not old and value.shape[:3] == (1, 1, 1):
                flat[path] = value.reshape(-1)
    return unflatten(flat)
