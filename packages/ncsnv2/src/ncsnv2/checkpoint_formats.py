"""Checkpoints and configurations of NCSNv2 for ``score-convert``.

    score-convert logs/cifar10/checkpoint_300000.pth model.pth --to pth --config ncsnv2:cifar10

The configuration is translated into score_sde's terms, whose networks ncsnv2_64, ncsnv2_128, ncsnv2_256 and ncsn are
NCSNv2, NCSNv2Deeper, NCSNv2Deepest and NCSN.
"""

from typing import Any

from ncsnv2.config import PACKAGED, architecture, check_config, load_config
from score_core.errors import UsageError

__all__ = ["config_names", "load_score_sde_config", "register", "score_sde_config"]

_NAMES = {"NCSNv2": "ncsnv2_64", "NCSNv2Deeper": "ncsnv2_128", "NCSNv2Deepest": "ncsnv2_256", "NCSN": "ncsn"}
_NORMALIZATIONS = ("InstanceNorm++", "InstanceNorm", "VarianceNorm")


def register() -> None:
    """Makes the lists of NCSNv2 known to ``score-convert``."""
    from score_core.checkpoints.formats import register_format
    from score_core.checkpoints.list_state import list_format

    register_format("ncsnv2", list_format("list of NCSNv2 (network, optimiser, epoch, step, average)", (4, 5)))


def config_names() -> list[str]:
    """The packaged configurations."""
    return sorted(file.stem for file in PACKAGED.glob("*.yml"))


def load_score_sde_config(name: str) -> Any:
    """A configuration of NCSNv2 (packaged, or the path of a YAML file) in score_sde's terms.

    Raises: UsageError if there is none, or score_sde has no such network.
    """
    return score_sde_config(load_config(name))


def score_sde_config(config: Any) -> Any:
    """The parts of a score_sde configuration that describe the network and the optimiser.

    Raises: UsageError if score_sde has no such network.
    """
    import ml_collections

    check_config(config, "train")
    model, data, optim = config.model, config.data, config.optim
    kind = architecture(config)
    allowed = _NORMALIZATIONS[:1] if kind == "NCSN" else _NORMALIZATIONS
    if kind not in _NAMES or model.normalization not in allowed or (kind == "NCSN" and model.spec_norm):
        raise UsageError(
            f"score_sde has no {kind} with {model.normalization}{' and spectral norm' if model.spec_norm else ''}: it "
            f"has {', '.join(_NAMES)} with {', '.join(_NORMALIZATIONS)} (NCSN with InstanceNorm++ alone)."
        )
    if model.sigma_dist != "geometric":
        raise UsageError("score_sde's noise levels are geometric (model.sigma_dist).")
    return ml_collections.ConfigDict(
        {
            "model": {
                "name": _NAMES[kind],
                "nf": model.ngf,
                "normalization": model.normalization,
                "nonlinearity": model.nonlinearity,
                "interpolation": "bilinear",
                "scale_by_sigma": kind != "NCSN",
                "sigma_max": float(model.sigma_begin),
                "sigma_min": float(model.sigma_end),
                "num_scales": model.num_classes,
                "num_classes": model.num_classes,
                "ema_rate": float(model.ema_rate),
                "dropout": 0.0,
            },
            "data": {
                "dataset": data.dataset,
                "image_size": data.image_size,
                "num_channels": data.channels,
                "centered": bool(data.rescaled or data.logit_transform),
            },
            "optim": {
                "lr": float(optim.lr),
                "beta1": float(optim.beta1),
                "eps": float(optim.eps),
                "weight_decay": float(optim.weight_decay),
                "warmup": 0,
                "optimizer": optim.optimizer,
                "grad_clip": -1.0,
            },
        }
    )
