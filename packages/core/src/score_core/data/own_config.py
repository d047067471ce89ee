"""A configuration file of ``score_sde`` for images of one's own, derived from a packaged one."""

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError

__all__ = ["OwnData", "check_base", "write_config"]

_TEXT = '''\
"""The configuration {base} on other images; written by `score-data sigma-max`.

{reason}
"""

import ml_collections

from score_sde.configs.load import load_config


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    config = load_config({base})
    with config.unlocked():
{data}
        config.data.centered = False  # the noise scales of a VE SDE are those of images in [0, 1]
        config.model.sigma_max = {sigma_max!r}
    return config
'''


@dataclass(frozen=True)
class OwnData:
    """The keys of ``config.data`` that say which images; empty strings as in the packaged configurations."""

    dataset: str
    image_size: int
    num_channels: int
    path: str = ""
    root: str = ""
    category: str = ""


def check_base(base: str, image_size: int) -> None:
    """Whether ``base`` can be the base of a configuration with a ``sigma_max`` for images of ``image_size``.

    Raises:
        UserError: score_sde is not installed, has no such configuration, or has one that is not of a VE SDE or whose
            network cannot take that size.
    """
    try:
        # By name, as the core may not know the packages that are built on it.
        loader: Any = import_module("score_sde.configs.load")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a configuration needs the package score_sde, which is not installed ({error}). Cure: install score_sde."
        ) from error
    config = loader.load_config(base)
    if config.training.sde.lower() != "vesde":
        raise UsageError(
            f"the configuration {base!r} is of the SDE {config.training.sde!r}, which has no sigma_max; expected "
            "vesde. Cure: --base ve/cifar10_ncsnpp_continuous, or photos for a small network."
        )
    halvings = len(config.model.get("ch_mult", (1,))) - 1
    if image_size % 2**halvings:
        raise UsageError(
            f"the network of {base!r} halves its input {halvings} times, so it cannot take image_size={image_size}. "
            f"Cure: --image-size, a multiple of {2**halvings}."
        )


def write_config(file: Path, base: str, data: OwnData, sigma_max: float, reason: str) -> None:
    """Write ``file``, python with a function ``get_config()``, for ``python -m score_sde --config FILE``.

    Arguments:
        file: what to write, atomically.
        base: name of a packaged configuration.
        data: which images.
        sigma_max: the largest noise scale, for images in [0, 1].
        reason: where ``sigma_max`` comes from, for the reader of the file.
    """
    lines = "\n".join(f"        config.data.{key} = {json.dumps(value)}" for key, value in vars(data).items())
    text = _TEXT.format(base=json.dumps(base), reason=reason, data=lines, sigma_max=float(sigma_max))
    atomic_write(file, text.encode())
