"""Files of classifiers, the same for both frameworks.

    checkpoints/checkpoint_{step}        the parameters that are used; the original's layout: a flax file whose root is
                                         the parameter tree
    checkpoints-meta/checkpoint_{step}   everything that training needs to go on, in the layout of
                                         :func:`score_core.jax.training.state_to_tree`

The network's size can be read off the tree.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.checkpoints.store import latest_checkpoint, read_checkpoint
from score_core.errors import UsageError

__all__ = ["network_of", "read_classifier_tree", "require_known"]


def read_classifier_tree(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The parameter tree of a classifier, and the file it was in.

    Arguments:
        path: the file, or a folder of ``checkpoint_{n}``, of which the newest is taken.

    Raises:
        CheckpointError: there is none (MissingCheckpointError), or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        newest = latest_checkpoint(path)
        if newest is None:
            raise MissingCheckpointError(f"no checkpoint_* in the folder {path}: give the classifier's file or folder.")
        path = newest
    return path, msgpack_format.loads(read_checkpoint(path), where=path)


def network_of(tree: Mapping[str, Any], where: Any) -> dict[str, int]:
    """``blocks_per_group``, ``channel_multiplier``, ``num_outputs`` and ``num_channels`` of a parameter tree.

    Raises:
        CheckpointError: it is not the tree of a wide ResNet.
    """
    try:
        blocks = tree["WideResnetGroup_0"]
        return {
            "blocks_per_group": len(blocks),
            "channel_multiplier": np.shape(blocks["WideResnetBlock_0"]["conv1"]["kernel"])[3] // 16,
            "num_outputs": np.shape(tree["Dense_2"]["bias"])[0],
            "num_channels": np.shape(tree["init_conv"]["kernel"])[2],
        }
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{where} does not hold the parameters of a noise-conditional classifier: give the file that "
            "python -m score_sde.classifier wrote (checkpoints/checkpoint_*), or the original's"
        ) from error


def require_known(labels: np.ndarray, num_classes: int | None) -> None:
    """Refuses labels that a classifier does not know; None: how many it knows is not known.

    Raises:
        UsageError: one of them is out of bounds, or no integer.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"class labels are integers; these are {labels.dtype}")
    wrong = labels[(labels < 0) | (labels >= num_classes)] if num_classes else labels[labels < 0]
    if wrong.size:
        known = f"the classes 0 to {num_classes - 1}" if num_classes else "classes from 0 on"
        raise UsageError(f"label {wrong.flat[0]}: the classifier knows {known}")
