"""Which configurations a checkpoint can belong to, by the names and shapes of its parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.convert import detect_format, read_state
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_format import loads_pth
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.torch_conversion import Comparison, compare_state_dict, compare_tree
from score_core.errors import UsageError

__all__ = ["fitting_configs"]


def fitting_configs(path: Path, configs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the configurations whose network has exactly the parameters of a file.

    Several may: noise levels and training do not show in the parameters.

    Arguments:
        path: a checkpoint in any format.
        configs: name to configuration.

    Returns:
        The names that fit, and those that could not be compared (networks other than ``ncsnpp`` and ``ddpm``).

    Raises:
        CheckpointError, UsageError: the file cannot be read.
    """
    data = read_checkpoint(path)
    if detect_format(data, path) == "pth":
        content = loads_pth(data, where=path)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise CheckpointError(f"{path} has no entry `model`: it is no checkpoint of the PyTorch port.")
        given, compare = content["model"], compare_state_dict
    elif detect_format(data, path) == "flax":
        tree = msgpack_format.loads(data, where=path)
        given, compare = tree.get("optimizer", {}).get("target", tree), compare_tree
    else:
        given, compare = read_state(path)[1]["optimizer"]["target"], compare_tree
    fitting, skipped = [], []
    for name, config in configs.items():
        try:
            comparison: Comparison = compare(given, config)
        except UsageError:
            skipped.append(name)
            continue
        if comparison.complete:
            fitting.append(name)
    return fitting, skipped
