"""Tiny experiments for tests: golden configurations, parameters filled by the rule, command lines."""

import re
from typing import Any

import goldens
import jax
import jax.numpy as jnp

from score_sde.configs.load import load_config
from score_sde.jax_experiment import JaxExperiment

# A network and run of seconds, as overrides of the command line.
TINY = {
    "data.image_size": 8,
    "model.nf": 8,
    "model.ch_mult": (1, 2),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (4,),
    "model.num_scales": 5,
    "model.beta_max": 4.0,  # five steps are then fine enough
    "training.batch_size": 8,
    "training.n_iters": 12,
    "training.log_freq": 1,
    "training.eval_freq": 4,
    "training.snapshot_freq": 12,
    "training.snapshot_freq_for_preemption": 4,
    "eval.batch_size": 90,
    "eval.num_samples": 200,
    "eval.begin_ckpt": 1,
    "eval.end_ckpt": 1,
    "optim.warmup": 4,
}


def tiny_flags(**more: Any) -> list[str]:
    """``TINY`` as command-line flags; ``model__nf=4`` overrides ``model.nf``."""
    return flags(TINY | {key.replace("__", "."): value for key, value in more.items()})


def flags(values: dict[str, Any]) -> list[str]:
    """Overrides of a configuration as command-line flags."""
    return [f"--config.{key}={value}" for key, value in values.items()]


def number_like(match: re.Match[str]) -> str:
    """For ``re.sub`` in a pattern: any number with as many digits after the point, with or without an exponent."""
    exponent = r"e[+-]\d\d" if match[2] else ""
    return rf"-?\d+\.\d{{{len(match[1])}}}{exponent}(?!\d)"


def golden_experiment(facts: dict[str, Any]) -> JaxExperiment:
    """The experiment of a golden entry: its ``config`` with its ``overrides``."""
    config = load_config(facts["config"])
    with config.unlocked(), config.ignore_type():
        for key, value in facts["overrides"].items():
            section, _, name = key.rpartition(".")
            owner = config[section] if section else config
            owner[name] = tuple(value) if isinstance(value, list) else value
        if config.model.name == "ncsn":
            config.model.num_classes = config.model.num_scales
    return JaxExperiment(config)


def filled_params(experiment: JaxExperiment) -> dict[str, Any]:
    """The network's parameters with the values of the golden fill rule."""
    x = jnp.zeros((1, *experiment.image_shape))
    init = lambda: experiment.model.init(jax.random.PRNGKey(0), x, jnp.zeros((1,), jnp.int32), train=False)  # noqa: E731
    return jax.tree.map(jnp.asarray, goldens.fill_tree(jax.eval_shape(init)["params"]))
