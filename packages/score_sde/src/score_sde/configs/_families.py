"""The families of experiments: each function is one column of choices, and a config file composes them.

A family is plain data, ``{section: {key: value}}``; `compose` merges families over a default from left to right. So
``compose(cifar10(), vp(continuous=True), pc("euler_maruyama"), ddpmpp())`` reads like the row of the paper's table.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

Family = Mapping[str, Mapping[str, Any]]


def compose(default: ml_collections.ConfigDict, *families: Family) -> ml_collections.ConfigDict:
    """Merge ``families`` into ``default`` in place, later ones winning, and return it.

    Raises
        TypeError: a family changes the type of a key that exists already.
    """
    for family in families:
        default.update(family)
    return default


# --- SDEs ------------------------------------------------------------------------------------------------------------


def vp(*, continuous: bool) -> Family:
    """The variance-preserving SDE on images in [-1, 1], the network predicting noise (DDPM's convention)."""
    return {
        "training": {"sde": "vpsde", "continuous": continuous, "reduce_mean": True},
        "data": {"centered": True},
        "model": {"scale_by_sigma": False, "ema_rate": 0.9999},
    }


def subvp() -> Family:
    """The sub-VP SDE; continuous only."""
    return {**vp(continuous=True), "training": {"sde": "subvpsde", "continuous": True, "reduce_mean": True}}


def ve(*, continuous: bool) -> Family:
    """The variance-exploding SDE on images in [0, 1], the network's output divided by sigma."""
    return {
        "training": {"sde": "vesde", "continuous": continuous, "reduce_mean": False},
        "data": {"centered": False},
        "model": {"scale_by_sigma": True, "ema_rate": 0.999},
    }


# --- samplers --------------------------------------------------------------------------------------------------------


def pc(predictor: str, corrector: str = "none", **sampling: Any) -> Family:
    """A predictor-corrector sampler (Algorithm 1 of the paper); ``sampling`` are further keys of that section."""
    return {"sampling": {"method": "pc", "predictor": predictor, "corrector": corrector, **sampling}}


def annealed_langevin(n_steps_each: int, snr: float) -> Family:
    """Annealed Langevin dynamics: the corrector alone."""
    return pc("none", "ald", n_steps_each=n_steps_each, snr=snr)


# --- networks --------------------------------------------------------------------------------------------------------


def ddpm(ch_mult: tuple[int, ...] = (1, 2, 2, 2), *, conditional: bool = True) -> Family:
    """The DDPM U-Net; ``conditional`` on the noise level."""
    return {
        "model": {
            "name": "ddpm",
            "normalization": "GroupNorm",
            "nonlinearity": "swish",
            "nf": 128,
            "ch_mult": ch_mult,
            "num_res_blocks": 2,
            "attn_resolutions": (16,),
            "resamp_with_conv": True,
            "conditional": conditional,
        }
    }


def _ncsnpp(**model: Any) -> Family:
    """What all networks built from the NCSN++ class share (Appendix H of the paper), with further ``model`` keys."""
    return {
        "model": {
            "name": "ncsnpp",
            "normalization": "GroupNorm",
            "nonlinearity": "swish",
            "nf": 128,
            "ch_mult": (1, 2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "resamp_with_conv": True,
            "conditional": True,
            "fir_kernel": [1, 3, 3, 1],
            "skip_rescale": True,
            "resblock_type": "biggan",
            "progressive_combine": "sum",
            "attention_type": "ddpm",  # parity: read by nothing, kept for programs that print or compare it
            "init_scale": 0.0,
            "conv_size": 3,  # parity: read by nothing, as above
            **model,
        }
    }


def ddpmpp() -> Family:
    """DDPM++: BigGAN residual blocks, rescaled skips, no FIR resampling, no progressive growing."""
    return _ncsnpp(
        fir=False,
        progressive="none",
        progressive_input="none",
        embedding_type="positional",
        fourier_scale=16,  # parity: not read by positional embeddings
    )


def ncsnpp(embedding_type: str) -> Family:
    """NCSN++ for 32 and 64 pixels: DDPM++ with FIR resampling and a residual input pyramid."""
    return _ncsnpp(fir=True, progressive="none", progressive_input="residual", embedding_type=embedding_type)


def fourier_scale() -> Family:
    """The scale of the random Fourier features.

    parity: the continuous VP and sub-VP files set it too, though their positional embeddings do not read it.
    """
    return {"model": {"fourier_scale": 16}}


def ncsnpp_256() -> Family:
    """NCSN++ for 256 pixels: output and input skips, seven levels."""
    return _ncsnpp(
        ch_mult=(1, 1, 2, 2, 2, 2, 2),
        num_res_blocks=2,
        fir=True,
        progressive="output_skip",
        progressive_input="input_skip",
        embedding_type="fourier",
        fourier_scale=16,
    )


def ncsnpp_1024() -> Family:
    """NCSN++ for 1024 pixels, with everything that its two files share beside the SDE and the sampler."""
    network = ncsnpp_256()["model"]
    return {
        "model": {
            **network,
            "nf": 16,
            "ch_mult": (1, 2, 4, 8, 16, 32, 32, 32),
            "num_res_blocks": 1,
            "sigma_max": 1348,
            "ema_rate": 0.9999,
        },
        # repaired: the originals lack n_jitted_steps, the enable_* switches, bpd_dataset and model.beta_*, so that they
        # stop at the first one read, and they import torch to store a device that nothing uses (dropped here).
        "training": {"batch_size": 8, "n_jitted_steps": 1},
        "eval": {"begin_ckpt": 1, "batch_size": 1024, "enable_sampling": True, "enable_loss": False},
        "sampling": {"snr": 0.15},
        "data": {"image_size": 1024},
        "optim": {"amsgrad": False},
    }


def deep() -> Family:
    """Twice the residual blocks, trained for 950,000 iterations."""
    return {"model": {"num_res_blocks": 8}, "training": {"n_iters": 950001}}


def ddpm_256() -> Family:
    """The DDPM U-Net of 256 pixels, with its shorter noise schedule and smaller learning rate."""
    network = ddpm((1, 1, 2, 2, 4, 4))["model"]
    return {"model": {**network, "num_scales": 1000}, "optim": {"lr": 2e-5}}


def _refinenet(name: str, *, ema_rate: float, num_scales: int, lr: float) -> Family:
    return {
        "model": {
            "name": name,
            "normalization": "InstanceNorm++",
            "nonlinearity": "elu",
            "nf": 128,
            "interpolation": "bilinear",
            "num_scales": num_scales,
            "ema_rate": ema_rate,
        },
        "optim": {"lr": lr, "warmup": 0, "grad_clip": -1.0, "amsgrad": False},
    }


def ncsn(num_scales: int, *, ema_rate: float) -> Family:
    """The RefineNet of NCSN, conditioned on the noise level by its normalisation; ``ema_rate`` 0 is no averaging."""
    network = _refinenet("ncsn", num_scales=num_scales, ema_rate=ema_rate, lr=1e-3)
    # repaired: the conditional normalisation reads num_classes, which no original file defines.
    return {**network, "model": {**network["model"], "scale_by_sigma": False, "num_classes": num_scales}}


def ncsnv2(name: str, num_scales: int, *, ema_rate: float) -> Family:
    """The unconditional RefineNet of NCSNv2, its output divided by sigma; ``name`` is ncsnv2_64, _128 or _256."""
    return _refinenet(name, num_scales=num_scales, ema_rate=ema_rate, lr=1e-4)


# --- data ------------------------------------------------------------------------------------------------------------


def lsun(category: str) -> Family:
    """An LSUN category."""
    return {"data": {"category": category}}


def tfrecords(dataset: str, path: str) -> Family:
    """FFHQ or CelebA-HQ from one TFRecord file.

    parity: ``path`` is the authors' own; `data.tfrecords_path` must be set to a file of yours.
    """
    return {"data": {"dataset": dataset, "tfrecords_path": path}}
