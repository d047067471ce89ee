"""The original's ``checkpoint.pt``: a pickled list [reverse SDE, optimiser, not_finished, count] of whole objects.

It is read without PyTorch and without running anything in it: the names below stand for holders, every other name is
refused (:mod:`score_core.checkpoints.pth_objects`).
"""

import io
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_objects import PickledObject, PickledParameter, loads_objects

__all__ = ["CLASSES", "OPTIONS", "loads", "recognises"]

_UNET = "lib.models.unet"
CLASSES = (
    "lib.sdes.PluginReverseSDE",
    "lib.sdes.VariancePreservingSDE",
    *(
        f"{_UNET}.{name}"
        for name in ("UNet", "ResidualBlock", "SelfAttention", "Swish", "TimestepEmbedding", "group_norm")
    ),
    *(
        f"torch.nn.modules.{name}"
        for name in (
            "activation.Softmax",
            "container.ModuleDict",
            "container.ModuleList",
            "container.Sequential",
            "conv.Conv2d",
            "dropout.Dropout2d",
            "linear.Identity",
            "linear.Linear",
            "normalization.GroupNorm",
            "pooling.AvgPool2d",
            "upsampling.Upsample",
        )
    ),
    "torch.optim.adam.Adam",
)
"""Import paths that may stand in a file."""

OPTIONS = (
    "input_channels",
    "input_height",
    "ch",
    "output_channels",
    "ch_mult",
    "num_res_blocks",
    "attn_resolutions",
    "dropout",
    "resamp_with_conv",
)
"""The U-net's attributes that are its constructor's arguments."""


def recognises(data: bytes) -> bool:
    """Whether the bytes look like such a file."""
    if data[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return len(pickles) == 1 and b"lib.sdes" in archive.read(pickles[0])[:200]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        return False


def loads(data: bytes, where: Any = "checkpoint") -> dict[str, Any]:
    """The contents as this program's checkpoints have them (:mod:`variational_sde.torch.checkpoint`), as arrays.

    Raises:
        CheckpointError: it is damaged, names something that is not allowed, or is not such a list.
    """
    content = loads_objects(data, CLASSES, where=where)
    try:
        return _translate(content)
    except (AttributeError, KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where} is no checkpoint of the original program ({type(error).__name__}: {error})."
        ) from error


def _translate(content: Any) -> dict[str, Any]:
    reverse, optimizer, _not_finished, count = content
    if reverse.path != CLASSES[0] or optimizer.path != CLASSES[-1] or type(count) is not int:
        raise ValueError("the list does not hold a reverse SDE, Adam, a flag and a count")
    base, network = (reverse.state["_modules"][name] for name in ("base_sde", "a"))
    T = float(np.asarray(reverse.state["_parameters"]["T"].data).reshape(()))
    norms = (module for _, module in _modules(network) if module.path.endswith("GroupNorm"))
    group = optimizer.state["param_groups"][0]
    numbers = {parameter: number for number, parameter in enumerate(group["params"])}
    moments = {
        numbers[parameter]: {"step": float(entry["step"]), **{k: entry[k] for k in ("exp_avg", "exp_avg_sq")}}
        for parameter, entry in optimizer.state["state"].items()
    }
    return {
        "format": "original",
        "count": count,
        "model": OrderedDict(_state_dict(reverse)),
        "ema": None,
        "optimizer": {
            "state": moments,
            "param_groups": [
                {k: group[k] for k in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
                | {"params": list(range(len(numbers)))}
            ],
        },
        "settings": {
            "network": {
                "kind": "unet",
                **{name: network.state[name] for name in OPTIONS},
                "groups": next(norms).state["num_groups"],
            },
            "sde": {name: base.state[name] for name in ("beta_min", "beta_max", "t_epsilon")} | {"T": T},
            "vtype": reverse.state["vtype"],
            "debias": bool(reverse.state["debias"]),
        },
        "rng": {},
        "pending": False,
        "loss": 0.0,
    }


def _modules(module: PickledObject, prefix: str = "") -> Iterator[tuple[str, PickledObject]]:
    """The module and those inside it, in the order of a state dict."""
    yield prefix, module
    for name, child in module.state["_modules"].items():
        if child is not None:
            yield from _modules(child, f"{prefix}{name}.")


def _state_dict(module: PickledObject) -> Iterator[tuple[str, np.ndarray]]:
    for prefix, part in _modules(module):
        for name, parameter in part.state["_parameters"].items():
            if isinstance(parameter, PickledParameter):
                yield f"{prefix}{name}", parameter.data
