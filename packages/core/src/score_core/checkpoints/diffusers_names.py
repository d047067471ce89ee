r"""NCSN++ as ``UNet2DModel`` of the diffusers library: what it can express, its configuration, its names.

The class is the network of the 256 and 1024-pixel VE models: BigGAN blocks with FIR resampling, an input pyramid that
is added and an output pyramid of skips, Fourier features, division by sigma at the end.

    down_blocks.i.resnets.j, .attentions.j, .resnet_down, .skip_conv    level i on the way down (Combine: skip_conv)
    mid_block.resnets.{0, 1}, .attentions.0
    up_blocks.u.resnets.j, .attentions.0, .skip_norm, .skip_conv, .resnet_up    level n - 1 - u on the way up
    conv_in, time_proj, time_embedding.linear_{1, 2}, conv_norm_out, conv_out
"""

import math
from collections import Counter
from typing import Any, NamedTuple

from score_core.checkpoints.torch_names import torch_leaves
from score_core.errors import UsageError

__all__ = ["VERSION", "Name", "diffusers_names", "require_expressible", "scheduler_config", "unet_config"]

VERSION = "0.42.1"
"""The release that written files name, with which they were checked."""

# What the class has built in: (section, key, value, value if the key is absent).
_FIXED: list[tuple[str, str, Any]] = [
    ("model", "name", "ncsnpp"),
    ("model", "resblock_type", "biggan"),
    ("model", "embedding_type", "fourier"),
    ("model", "progressive", "output_skip"),
    ("model", "progressive_input", "input_skip"),
    ("model", "progressive_combine", "sum"),
    ("model", "fir", True),
    ("model", "fir_kernel", [1, 3, 3, 1]),
    ("model", "skip_rescale", True),
    ("model", "conditional", True),
    ("model", "scale_by_sigma", True),
    ("model", "nonlinearity", "swish"),
    ("data", "num_channels", 3),
    ("training", "sde", "vesde"),
    ("training", "continuous", True),
]
_RESNET = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "time_emb_proj",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "Conv_2": "conv_shortcut",
}
_ATTENTION = {"GroupNorm_0": "group_norm", "NIN_0": "to_q", "NIN_1": "to_k", "NIN_2": "to_v", "NIN_3": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of releases before 0.15, which the published folders have."""
_LAST = {"scale": "weight", "kernel": "weight", "W": "weight", "b": "bias", "bias": "bias"}


class Name(NamedTuple):
    """A parameter: its keys in the port and in diffusers, and whether the two are transposed (NIN against Linear)."""

    torch_key: str
    diffusers_key: str
    transposed: bool


def require_expressible(config: Any) -> None:
    """Raises UsageError naming every key for which the class has no place."""
    problems = []
    for section, key, wanted in _FIXED:
        found = getattr(config, section).get(key)
        plain = list(found) if isinstance(found, tuple | list) else found
        if (plain.lower() if isinstance(plain, str) else plain) != wanted:
            problems.append(f"{section}.{key} is {plain!r}, it has {wanted!r} only")
    if not problems:
        problems = _shape_problems(config)
    if problems:
        raise UsageError(
            "the class UNet2DModel of diffusers cannot express this network: " + "; ".join(problems) + ". "
            "Convert to pth or safetensors instead."
        )


def _shape_problems(config: Any) -> list[str]:
    model = config.model
    problems = []
    if model.ch_mult[0] != 1:
        problems.append(f"model.ch_mult begins with {model.ch_mult[0]}, it has 1 only")
    for level, multiplier in enumerate(model.ch_mult):
        width = model.nf * multiplier
        if _attends(config, level) and width % 32:
            problems.append(f"attention at level {level} has {width} channels, it takes multiples of 32 only")
        elif _attends(config, level) and width < 128:
            problems.append(f"attention at level {level} has {width} channels, it has at least 128 (32 groups)")
    return problems


def _attends(config: Any, level: int) -> bool:
    return config.data.image_size // 2**level in config.model.attn_resolutions


def unet_config(config: Any) -> dict[str, Any]:
    """The contents of ``config.json`` of the network."""
    model, levels = config.model, range(len(config.model.ch_mult))
    down = ["AttnSkipDownBlock2D" if _attends(config, level) else "SkipDownBlock2D" for level in levels]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": config.data.image_size,
        "in_channels": 3,
        "out_channels": 3,
        "center_input_sample": not config.data.centered,
        "time_embedding_type": "fourier",
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        "block_out_channels": [model.nf * multiplier for multiplier in model.ch_mult],
        "layers_per_block": model.num_res_blocks,
        "mid_block_scale_factor": math.sqrt(2),
        "downsample_padding": 1,
        "dropout": float(model.dropout),
        "act_fn": "silu",
        "attention_head_dim": None,
        "norm_num_groups": None,
        "norm_eps": 1e-6,
    }


def scheduler_config(config: Any) -> dict[str, Any]:
    """The contents of ``scheduler_config.json``."""
    return {
        "_class_name": "ScoreSdeVeScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": config.model.num_scales,
        "snr": float(config.sampling.snr),
        "sigma_min": float(config.model.sigma_min),
        "sigma_max": float(config.model.sigma_max),
        "sampling_eps": 1e-5,
        "correct_steps": config.sampling.n_steps_each,
    }


def _modules(config: Any) -> dict[str, str]:
    """Flax modules to those of the class."""
    numbers: Counter[str] = Counter()
    found = {"GaussianFourierProjection_0": "time_proj"}

    def take(kind: str, name: str) -> None:
        found[f"{kind}_{numbers[kind]}"] = name
        numbers[kind] += 1

    def resnet(name: str) -> None:
        take("ResnetBlockBigGANpp", name)

    take("Dense", "time_embedding.linear_1")
    take("Dense", "time_embedding.linear_2")
    take("Conv", "conv_in")
    model, last = config.model, len(config.model.ch_mult) - 1
    for level in range(last + 1):
        block = f"down_blocks.{level}"
        for j in range(model.num_res_blocks):
            resnet(f"{block}.resnets.{j}")
            if _attends(config, level):
                take("AttnBlockpp", f"{block}.attentions.{j}")
        if level < last:
            resnet(f"{block}.resnet_down")
            take("Combine", f"{block}.skip_conv")
    resnet("mid_block.resnets.0")
    take("AttnBlockpp", "mid_block.attentions.0")
    resnet("mid_block.resnets.1")
    for level in reversed(range(last + 1)):
        block = f"up_blocks.{last - level}"
        for j in range(model.num_res_blocks + 1):
            resnet(f"{block}.resnets.{j}")
        if _attends(config, level):
            take("AttnBlockpp", f"{block}.attentions.0")
        take("GroupNorm", f"{block}.skip_norm" if level else "conv_norm_out")
        take("Conv", f"{block}.skip_conv" if level else "conv_out")
        if level:
            resnet(f"{block}.resnet_up")
    return found


def diffusers_names(config: Any) -> list[Name]:
    """The place of every parameter.

    Raises:
        UsageError: the class cannot express the network.
    """
    require_expressible(config)
    modules = _modules(config)
    names = []
    for leaf in torch_leaves(config):
        assert leaf.name is not None  # it is conditional, so every layer is read
        module, *inner, last = leaf.name.jax_path.split("/")
        own = modules[module]
        if inner and module.startswith("ResnetBlock"):
            own += "." + _RESNET[inner[0]]
        elif inner and module.startswith("AttnBlock"):
            own += "." + _ATTENTION[inner[0]]
        nin = bool(inner) and inner[0].startswith("NIN") and last == "W"
        names.append(Name(leaf.key, f"{own}.{_LAST[last]}", nin))
    return names
