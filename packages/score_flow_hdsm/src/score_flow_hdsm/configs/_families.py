"""The families of experiments, composed as in :mod:`score_sde.configs._families`."""

import ml_collections

from score_flow_hdsm.configs._defaults import Program, cifar10, imagenet32
from score_sde.configs import _families as base
from score_sde.configs._families import Family, compose

__all__ = ["church", "compose", "ddpmpp", "deep", "langevin", "ncsnpp"]


def _merged(config: ml_collections.ConfigDict, *families: Family) -> ml_collections.ConfigDict:
    with config.unlocked(), config.ignore_type():
        return compose(config, *families)


def _trained_for(n_iters: int) -> Family:
    """The iterations of a deep network, whose checkpoint 19 is evaluated."""
    return {"training": {"n_iters": n_iters}, "eval": {"begin_ckpt": 19, "end_ckpt": 19, "ckpt_id": 19}}


def ddpmpp(program: Program, sde: str, dataset: str, *, deep_iters: int | None = None) -> ml_collections.ConfigDict:
    """DDPM++ cont. for VP or sub-VP; ``deep_iters``: the deep network, and its iterations."""
    smallest = 1e-3 if sde == "vpsde" else 1e-2
    times = {"sampling": {"smallest_time": smallest}}
    if sde == "subvpsde":
        times["training"] = {"smallest_time": 1e-2}
    default = cifar10(program) if dataset == "cifar10" else imagenet32(program)
    network = base.ddpmpp()["model"]
    return _merged(
        default,
        base.vp(continuous=True) if sde == "vpsde" else base.subvp(),
        {"sampling": {"method": "ode"}, "model": dict(network)},
        times,
        *([deep(), _trained_for(deep_iters)] if deep_iters else []),
    )


def ncsnpp(default: ml_collections.ConfigDict, *families: Family) -> ml_collections.ConfigDict:
    """NCSN++ cont. for VE, sampled by the ODE unless a family says otherwise."""
    return _merged(
        default,
        base.ve(continuous=True),
        base.ncsnpp("fourier"),
        base.fourier_scale(),
        {
            "training": {"reduce_mean": True, "likelihood_weighting": False, "importance_weighting": False},
            "sampling": {"method": "ode", "smallest_time": 1e-5},
        },
        *families,
    )


def deep() -> Family:
    """Twice the residual blocks."""
    return {"model": {"num_res_blocks": 8}}


def langevin() -> Family:
    """The predictor-corrector sampler: reverse diffusion and Langevin."""
    return base.pc("reverse_diffusion", "langevin", probability_flow=False)


def church() -> Family:
    """The network of 256 pixels, for LSUN's church outdoor."""
    network = base.ncsnpp_256()["model"]
    return {
        "data": {"category": "church_outdoor"},
        "model": {**network, "ch_mult": (1, 1, 2, 2, 2, 2, 2), "sigma_max": 380},
    }
