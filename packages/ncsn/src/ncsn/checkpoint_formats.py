"""Checkpoints of NCSN for ``score-convert``, and the way between them and the network ``ncsn`` of score_sde.

    format              a file is                                                        written by
    ncsn                the list [network, optimiser] as .pth, keys with ``module.``     python -m ncsn, the original
    ncsn_safetensors    the same as arrays network/<key>, optimizer/<n>/<moment>         score-convert

The configuration is not needed to convert between these two. Between them and the formats of score_sde it is:
``--config ncsn:NAME`` (or the configuration that training left beside the checkpoint). Such a checkpoint keeps the
flavor ``pytorch`` there: the JAX program's own ``ncsn`` has twice as many channels in its third refine block, where no
shape allows a conversion. The optimiser's moments are not carried across.
"""

import json
from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ncsn.config import PACKAGED, complete, list_configs, load_config
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import SCORE_SDE, Format, Report, register_bridge, register_format
from score_core.checkpoints.list_checkpoint import ListCheckpoint, parse_list_checkpoint
from score_core.checkpoints.pth_format import outline_pth
from score_core.checkpoints.safetensors_state import read_arrays, recognises_safetensors
from score_core.checkpoints.torch_conversion import from_torch, to_torch
from score_core.checkpoints.training_state import flavor_of, parameter_sets
from score_core.errors import UsageError
from score_core.runs.namespace_config import load_namespace

__all__ = ["FAMILY", "names", "register", "sde_config"]

FAMILY = "ncsn"
_PREFIX = "module."
_MARK = "ncsn training state"


def sde_config(name: str) -> Any:
    """A packaged configuration, or a file, in the terms of score_sde; what ``--config ncsn:NAME`` means.

    Raises: UsageError: there is none of that name, or its network is not NCSN.
    """
    if name not in list_configs() and not Path(name).is_file():
        raise UsageError(f"ncsn has no configuration {name!r}; it has {', '.join(list_configs())}.")
    return _translated(load_config(str(PACKAGED / f"{name}.yml") if name in list_configs() else name))


def names() -> list[str]:
    """The packaged configurations of NCSN's network."""
    return [name for name in list_configs() if name.startswith(("anneal", "digits", "photos"))]


def _translated(config: Any) -> Any:
    import ml_collections

    complete(config)
    model, data = config.model, config.data
    if not hasattr(model, "num_classes") or not hasattr(model, "ngf"):
        raise UsageError(
            "this is no configuration of NCSN (model.num_classes, model.ngf), which alone has a counterpart."
        )
    return ml_collections.ConfigDict(
        {
            "model": {
                "name": "ncsn",
                "nf": model.ngf,
                "num_classes": model.num_classes,
                "num_scales": model.num_classes,
                "sigma_min": float(model.sigma_end),
                "sigma_max": float(model.sigma_begin),
                "normalization": "InstanceNorm++",
                "nonlinearity": "elu",
                "interpolation": "bilinear",
                "scale_by_sigma": False,
                "ema_rate": 0.0,
                "flavor": "pytorch",
            },
            "data": {
                "dataset": data.dataset,
                "image_size": data.image_size,
                "num_channels": data.channels,
                "centered": bool(data.logit_transform),
            },
            "training": {"continuous": False},
            "optim": {
                "lr": float(getattr(getattr(config, "optim", None), "lr", 1e-3)),
                "beta1": 0.9,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "warmup": 0,
            },
        }
    )


def _beside(data: Any, path: Path) -> Any:
    """The configuration that training left beside a checkpoint, if it is one of NCSN."""
    del data
    record = path.parent / "config.yml"
    if not record.is_file():
        return None
    try:
        return _translated(load_namespace(record))
    except UsageError:
        return None


def _recognises(data: bytes) -> bool:
    try:
        content = outline_pth(data)
    except CheckpointError:
        return False
    return isinstance(content, list) and len(content) == 2 and all(isinstance(part, dict) for part in content)


def _read(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config, report
    return _tree(parse_list_checkpoint(data, where), data)


def _tree(checkpoint: ListCheckpoint, data: bytes) -> dict[str, Any]:
    # Keys of ScoreNet have no prefix: that of the file is kept.
    first = next(iter(outline_pth(data)[0]))
    prefix = _PREFIX if first.startswith(_PREFIX) else ""
    return {"network": checkpoint.network, "optimizer": checkpoint.optimizer, "prefix": prefix}


def _write(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config
    network = OrderedDict((tree["prefix"] + key, value) for key, value in tree["network"].items())
    report.copied += [(key, tree["prefix"] + key) for key in tree["network"]]
    # Lazily and by name: only writing needs PyTorch.
    return import_module("score_core.torch.pth").dumps([network, tree["optimizer"]])


def _recognises_safetensors(data: bytes) -> bool:
    if not recognises_safetensors(data):
        return False
    try:
        return _metadata(data).get("format") == _MARK
    except (ValueError, AttributeError, RecursionError):
        return False


def _metadata(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def _read_safetensors(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config, report
    arrays = read_arrays(data, where)
    try:
        plain = json.loads(_metadata(data)["plain"])
        network = OrderedDict((key, arrays[f"network/{key}"]) for key in plain["keys"])
        state: dict[int, dict[str, Any]] = {int(n): dict(values) for n, values in plain["state"].items()}
        for name, value in arrays.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                number, _, moment = rest.partition("/")
                state.setdefault(int(number), {})[moment] = value
        groups = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in plain["param_groups"]]
        optimizer = {"state": state, "param_groups": groups}
        return {"network": network, "optimizer": optimizer, "prefix": str(plain["prefix"])}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{where} is not a checkpoint of NCSN as score-convert writes it ({error!r}).") from error


def _write_safetensors(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config
    from safetensors.numpy import save

    arrays = {f"network/{key}": np.ascontiguousarray(value) for key, value in tree["network"].items()}
    plain_state: dict[str, dict[str, Any]] = {}
    for number, values in tree["optimizer"]["state"].items():
        for moment, value in values.items():
            if isinstance(value, np.ndarray) and value.ndim:
                arrays[f"optimizer/{number}/{moment}"] = np.ascontiguousarray(value)
            else:
                plain_state.setdefault(str(number), {})[moment] = np.asarray(value).item()
    plain = {
        "keys": list(tree["network"]),
        "prefix": tree["prefix"],
        "state": plain_state,
        "param_groups": tree["optimizer"]["param_groups"],
    }
    report.copied += [(key, f"network/{key}") for key in tree["network"]]
    return save(arrays, {"format": _MARK, "plain": json.dumps(plain)})


def _to_sde(tree: dict[str, Any], config: Any, report: Report) -> dict[str, Any]:
    config = _require_config(config)
    if not any(key.endswith("embed.weight") for key in tree["network"]):
        raise UsageError("only NCSN has a counterpart in score_sde; this is a checkpoint of another runner.")
    params = from_torch(tree["network"], config)
    report.notes.append("the optimiser's moments are left out")
    report.notes.append(
        "the network keeps the PyTorch program's numbers (flavor pytorch): the JAX program's third refine block has "
        "twice the channels"
    )
    return {"params": params, "meta": {"flavor": "pytorch"}}


def _from_sde(tree: dict[str, Any], config: Any, report: Report) -> dict[str, Any]:
    config = _require_config(config)
    if flavor_of(tree) != "pytorch":
        raise UsageError("these weights are of the JAX program's network, whose shapes NCSN's original does not have.")
    sets = parameter_sets(tree)
    which = "ema" if "ema" in sets else next(iter(sets))
    report.notes.append(f"the {which} weights are taken; the optimiser is new")
    network = OrderedDict((key, value) for key, value in to_torch(sets[which], config).items() if key != "sigmas")
    optim = config.optim
    group = {
        "lr": float(optim.lr),
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "params": list(range(len(network))),
    }
    return {"network": network, "optimizer": {"state": {}, "param_groups": [group]}, "prefix": _PREFIX}


def _require_config(config: Any) -> Any:
    if config is None:
        raise UsageError("between NCSN and score_sde names are translated: give --config ncsn:NAME.")
    return config


def register() -> None:
    """Make the formats known to ``score-convert``."""
    about = "list of network and optimiser, NCSN's checkpoint.pth"
    register_format("ncsn", Format(about, _recognises, _read, _write, False, FAMILY, config=_beside))
    about = "the same as safetensors"
    register_format(
        "ncsn_safetensors",
        Format(about, _recognises_safetensors, _read_safetensors, _write_safetensors, False, FAMILY, config=_beside),
    )
    register_bridge(FAMILY, SCORE_SDE, _to_sde)
    register_bridge(SCORE_SDE, FAMILY, _from_sde)
