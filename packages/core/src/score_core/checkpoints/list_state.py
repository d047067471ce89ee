"""List checkpoints (:mod:`score_core.checkpoints.list_checkpoint`) as a format of ``score-convert``.

The networks of NCSN and NCSNv2 are those of score_sde's PyTorch program (``ncsn``, ``ncsnv2_64``, ``_128``, ``_256``
in the flavor "pytorch"), under the same keys. So a list is read into, and written from, the training state of
:mod:`score_core.checkpoints.training_state`; what has no place there (epochs, the settings of the optimiser) comes from
the configuration or is said in the report. A package registers the lengths of its lists:

    register_format("ncsnv2", list_format("list of NCSNv2", (4, 5)))
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Format, Report
from score_core.checkpoints.list_checkpoint import ListCheckpoint, parse_list
from score_core.checkpoints.pth_format import loads_pth, outline_pth
from score_core.checkpoints.pth_state import read_content, recognises_pth, state_content
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.torch_conversion import SIGMAS, add_module, compare_state_dict, strip_module
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.training_state import flavor_of, whole_state
from score_core.errors import UsageError

__all__ = ["list_format"]

FLAVOR = "pytorch"
"""Whose network it is, where score_sde's two programs differ."""
_ADAM = ("step", "exp_avg", "exp_avg_sq")
# The order of a list's entries, by the first part of their names. The port registers refine31 before refine3.
_ORDER = (
    *("sigmas", "begin_conv", "normalizer", "end_conv", "res1", "res2", "res3", "res31", "res4", "res5"),
    *("refine1", "refine2", "refine3", "refine31", "refine4", "refine5"),
)


def _in_order(keys: Iterable[str]) -> list[str]:
    return sorted(keys, key=lambda key: _ORDER.index(key.partition(".")[0]))


def list_format(about: str, lengths: Collection[int]) -> Format:
    """The format of lists with one of ``lengths``: 2 (NCSN), 4 or 5 (NCSNv2 without and with average)."""
    return Format(
        about,
        lambda data: _recognises(data, lengths),
        _read,
        lambda tree, config, report: _write(tree, config, report, max(lengths)),
        True,
        run=_run,
        fits=_fits,
    )


def _recognises(data: bytes, lengths: Collection[int]) -> bool:
    if not recognises_pth(data):
        return False
    try:
        content = outline_pth(data)
    except CheckpointError:
        return False
    return isinstance(content, list) and len(content) in lengths


def _content(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """The list as the port's training state."""
    given = parse_list(loads_pth(data, where=where), where)
    leaves = torch_leaves(config, FLAVOR)
    trained = [leaf.key for leaf in leaves]
    if given.average is None:
        report.notes.append("there are no averaged parameters: the raw ones stand for them")
    average = given.average or given.network
    absent = [key for key in trained if key not in average]
    if absent:
        raise CheckpointError(
            f"{where} is not of the configured network: {absent[0]} is missing ({len(absent)} in all). Take the "
            "configuration it was trained with."
        )
    # numbered in the order of the list's own network
    places = {key: n for n, key in enumerate(key for key in given.network if key in set(trained))}
    numbered: dict[Any, Any] = given.optimizer["state"]
    state = {n: numbered[places[key]] for n, key in enumerate(trained) if places.get(key) in numbered}
    if any(not set(_ADAM) <= entry.keys() for entry in state.values()):
        report.notes.append("the optimiser is not Adam: its state is left out")
        state = {}
    if any("max_exp_avg_sq" in entry for entry in state.values()):
        report.notes.append("the maxima of amsgrad have no place and are left out")
    if given.epoch is not None:
        report.notes.append(f"the epoch, {given.epoch}, has no place and is left out")
    counts = {int(np.asarray(entry["step"])) for entry in state.values()}
    return {
        "optimizer": {
            "state": {n: {key: entry[key] for key in _ADAM} for n, entry in state.items()},
            "param_groups": given.optimizer["param_groups"],
        },
        "model": given.network,
        "ema": {
            "decay": getattr(config.model, "ema_rate", 0.0) if given.average is not None else 0.0,
            "num_updates": None,
            "shadow_params": [average[key] for key in trained],
        },
        # lists of NCSN hold no step: Adam's count is the number of updates
        "step": given.step if given.step is not None else max(counts, default=0),
    }


def _read(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    return read_content(_content(data, config, report, where), config, report, where)


def _write(tree: Mapping[str, Any], config: Any, report: Report, length: int) -> bytes:
    if flavor_of(tree) != FLAVOR:
        raise UsageError(
            "these are parameters of the JAX program's network, which computes other numbers than that of NCSN and "
            "NCSNv2; only those of the PyTorch program can become theirs."
        )
    content = state_content(whole_state(tree, config, report), config, report)
    network = {key: np.asarray(value, np.float32) for key, value in strip_module(content["model"]).items()}
    if config.model.name.lower() == "ncsn":
        network.pop(SIGMAS, None)  # NCSN has no levels of its own
    keys = [leaf.key for leaf in torch_leaves(config, FLAVOR)]
    averages = dict(zip(keys, content["ema"]["shadow_params"], strict=True))
    ordered, state = _in_order(keys), content["optimizer"]["state"]
    places = {key: n for n, key in enumerate(ordered)}
    optimizer = {**content["optimizer"], "state": {places[keys[n]]: state[n] for n in sorted(state)}}
    entries = [
        OrderedDict(add_module({key: network[key] for key in _in_order(network)})),
        optimizer,
        0,
        int(content["step"]),
        {key: averages[key] for key in ordered},
    ]
    if length == 2:
        report.notes.append("averaged parameters and the step have no place in a list of two and are left out")
    return import_module("score_core.torch.pth").dumps(entries[:length])


def _run(path: Any, config: Any, weights: str) -> np.ndarray:
    """The port's network with the list's parameters."""
    run = import_module("score_core.checkpoints.verify").run_state_dict
    given: ListCheckpoint = parse_list(loads_pth(read_checkpoint(path), where=path), path)
    average = given.average if weights == "ema" else None
    return run({**given.network, **(average or {})}, config, FLAVOR)


def _fits(data: bytes, where: Any) -> Callable[[Any], bool]:
    network = parse_list(outline_pth(data, where=where), where).network
    return lambda config: compare_state_dict(network, config, FLAVOR).complete
