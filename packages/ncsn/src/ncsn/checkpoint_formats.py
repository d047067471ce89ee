"""NCSN's checkpoints and configurations for ``score-convert``.

    score-convert run/logs/DOC/checkpoint.pth OUT --to safetensors | flax | pth        (config.yml beside it is taken)
    score-convert OUT checkpoint.pth --to ncsn --config ncsn:anneal_cifar10

The network is score_sde's ``ncsn`` as its PyTorch program has it (flavor "pytorch"). The JAX program's own ``ncsn`` has
twice as many channels in its third refine block, where no shape allows a conversion: weights keep their flavor, which
the report says. Checkpoints of BaselineRunner and ScoreNetRunner hold networks that score_sde does not have.
"""

from pathlib import Path
from typing import Any

from ncsn.config import complete, list_configs, load_config
from score_core.checkpoints.formats import register_format
from score_core.checkpoints.list_state import list_format
from score_core.errors import UsageError
from score_core.runs.namespace_config import load_namespace

__all__ = ["names", "register", "sde_config"]


def names() -> list[str]:
    """The packaged configurations of NCSN's network, without ending."""
    return [name for name in list_configs() if hasattr(getattr(load_config(name), "model", None), "num_classes")]


def sde_config(name: str) -> Any:
    """A packaged configuration, or a file, in the terms of score_sde; what ``--config ncsn:NAME`` means.

    Raises: UsageError: there is none of that name, or its network is not NCSN.
    """
    return _translated(load_config(name))


def _translated(config: Any) -> Any:
    import ml_collections

    model: Any = getattr(config, "model", None)
    if not (hasattr(model, "num_classes") and hasattr(model, "ngf")):
        raise UsageError(
            "this is no configuration of NCSN (model.num_classes, model.ngf), which alone can be converted."
        )
    complete(config)
    data, optim = config.data, config.optim
    sections: dict[str, dict[str, Any]] = {
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
            "lr": float(getattr(optim, "lr", 1e-3)),
            "beta1": float(getattr(optim, "beta1", 0.9)),
            "eps": 1e-8,
            "weight_decay": float(getattr(optim, "weight_decay", 0.0)),
            "warmup": 0,
        },
    }
    return ml_collections.ConfigDict(sections)


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


def register() -> None:
    """Make the format known to ``score-convert``."""
    about = "list of network and optimiser, NCSN's checkpoint.pth"
    register_format("ncsn", list_format(about, (2,))._replace(config=_beside))
