"""A trained classifier, ready to lead the sampler of an experiment."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from score_core.checkpoints.errors import MissingCheckpointError
from score_core.errors import UsageError
from score_core.runs.config_record import compare_configs
from score_sde.classifier.checkpoints import network_of, read_classifier_tree
from score_sde.classifier.train import build_classifier

__all__ = ["LoadedClassifier", "load_classifier"]

# What classifier and score network have to agree on.
_SHARED = {
    "data": ("image_size", "num_channels", "centered"),
    "training": ("sde",),
    "model": ("beta_min", "beta_max", "sigma_min", "sigma_max"),
}
_CURE = "train one with python -m score_sde.classifier and the same --config, or name another with --classifier_workdir"


@dataclass(frozen=True)
class LoadedClassifier:
    """What :func:`score_core.jax.controllable.get_pc_conditional_sampler` (or PyTorch's) needs of a classifier."""

    gradient: Callable[[Any, Any, Any, Any], Any]
    """``gradient(params, x, std, labels)``."""
    params: Any
    num_classes: int
    path: Path


def load_classifier(path: str | Path, config: ml_collections.ConfigDict, framework: str) -> LoadedClassifier:
    """The classifier of a work directory, or of a file in the original's format.

    Arguments:
        path: a work directory of ``python -m score_sde.classifier``, of either framework. Or a file: it is taken for
            the published classifier's, which expects images with CIFAR-10's means and deviations taken out.
        config: the experiment whose sampler is led.
        framework: ``"jax"`` or ``"torch"``.

    Raises:
        MissingCheckpointError: there is none.
        UsageError: it was trained for other images or another SDE.
        CheckpointError: it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise MissingCheckpointError(f"no classifier {path}: {_CURE}.")
    published = path.is_file()
    if not published:
        _require_same_noise(path, config)
        if not any(path.glob("checkpoints/checkpoint_*")):
            raise MissingCheckpointError(f"the training of the classifier in {path} is not finished: {_CURE}.")
    file, tree = read_classifier_tree(path if published else path / "checkpoints")
    network = network_of(tree, file)
    data: Any = config.data
    if network["num_channels"] != data.num_channels:
        raise UsageError(
            f"the classifier {file} takes images of {network['num_channels']} channels, the experiment has "
            f"{data.num_channels}: {_CURE}."
        )
    classifier = build_classifier(config, network, framework, published=published)
    params = classifier.params_from_tree(tree, file)
    return LoadedClassifier(classifier.gradient, params, network["num_outputs"], file)


def _require_same_noise(workdir: Path, config: ml_collections.ConfigDict) -> None:
    record = workdir / "config.json"
    try:
        trained_for = _shared(json.loads(record.read_bytes())["experiment"])
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"no classifier in {workdir}: {_CURE}.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{record} is not the record of a classifier's training: {_CURE}.") from error

    if changes := compare_configs(trained_for, _shared(config)):
        lines = "\n".join(f"  {change}" for change in changes)
        raise UsageError(f"the classifier in {workdir} was trained for another experiment:\n{lines}\nCure: {_CURE}.")


def _shared(whole: Any) -> dict[str, Any]:
    return {section: {key: whole[section].get(key) for key in keys} for section, keys in _SHARED.items()}
