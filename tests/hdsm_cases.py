"""Golden configurations and parameters for this package's tests."""

import zlib
from functools import lru_cache
from typing import Any

import goldens
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from score_core.jax.networks import init_params
from score_flow_hdsm.networks import create_model
from score_flow_hdsm.sdes import get_sde

PACKAGE = "score_flow_hdsm"

# The network of the loss goldens, as overrides of a published configuration.
LOSS_NETWORK = {
    "model": {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "dropout": 0.0},
    "data": {"image_size": 8},
}


def load(name: str) -> Any:
    return goldens.load(PACKAGE, name)


def config_of(facts: dict[str, Any]) -> ml_collections.ConfigDict:
    """A golden's complete configuration."""
    config = ml_collections.ConfigDict(facts["config"])
    for key in ("ch_mult", "attn_resolutions", "fir_kernel"):
        config.model[key] = tuple(config.model[key])
    return config


def published(base: str, program: str, *overrides: dict[str, Any]) -> ml_collections.ConfigDict:
    """A published configuration with overrides by section."""
    config = config_of({"config": load("configs.json")[f"{program}/configs/{base}.py"]})
    with config.unlocked(), config.ignore_type():
        for override in overrides:
            for section, values in override.items():
                config[section].update(values)
    return config


def apply_of(model: Any) -> Any:
    def apply(params, x, labels, dropout_key=None):
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return model.apply({"params": params}, x, labels, train=dropout_key is not None, rngs=rngs)

    return apply


def sde_of(config: Any) -> Any:
    return get_sde(config.training.sde, N=config.model.num_scales, **config.model)


def network_of(config: Any) -> tuple[Any, dict[str, Any]]:
    """The network's apply function (one object for one network, so that compilations are shared) and its parameters
    by the fill rule."""
    model = create_model(config)
    return _filled(model, config.data.image_size, config.data.num_channels)


@lru_cache
def _filled(model: Any, size: int, channels: int) -> tuple[Any, dict[str, Any]]:
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.PRNGKey(0), (size, size, channels)))
    return apply_of(model), jax.tree.map(jnp.asarray, goldens.fill_tree(shapes))


# The network of the goldens of likelihood, samplers and dequantiser.
SMALLEST_NETWORK = {
    "model": {"nf": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": (), "dropout": 0.0},
    "data": {"image_size": 8},
}


def gentle(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The dequantiser's fill rule, under which gains are positive and the flow can be inverted."""
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(size=shape)
    if name.endswith("_g"):
        return np.asarray(1 + 0.1 * n, np.float32)
    if "/Pointwise_" in name:
        return np.asarray(np.eye(shape[0]) + 0.1 * n, np.float32)
    return np.asarray(0.2 * goldens.fill(name, shape), np.float32)


def compare_checks(arrays: dict[str, Any], checks: dict[str, Any], rtol: float) -> None:
    """Sums of sizes and first elements of arrays against a golden's ``{"abs", "first"}``."""
    for name, facts in checks.items():
        if name.startswith("__"):
            continue
        array = np.asarray(arrays[name].detach() if hasattr(arrays[name], "detach") else arrays[name], np.float64)
        np.testing.assert_allclose(np.abs(array).sum(), facts["abs"], rtol=rtol, err_msg=name)
        first = facts["first"]
        np.testing.assert_allclose(
            array.ravel()[: len(first)], first, rtol=rtol, atol=rtol * np.abs(array).max(), err_msg=name
        )
