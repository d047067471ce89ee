"""A checkpoint written by the original's training loop, through our network."""

import functools
from typing import Any

import goldens
import jax
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.jax import networks


@pytest.mark.parametrize("which", ["params", "ema"])
def test_outputs_with_the_weights_of_a_real_checkpoint(which, official_config):
    tree = goldens.load("score_sde", "checkpoint_real/tree.json")
    forward = goldens.load("score_sde", "checkpoint_real/forward.npz")
    state = msgpack_format.loads(goldens.path("score_sde", "checkpoint_real/checkpoint_1").read_bytes())
    params = state["optimizer"]["target"] if which == "params" else state["params_ema"]

    config = official_config(tree["config"], {key: value for key, value in tree["overrides"].items() if "." in key})
    model = networks.create_model(config)
    init = functools.partial(networks.init_params, model, image_shape=forward["x"].shape[1:])
    shapes = jax.eval_shape(init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)

    out: Any = model.apply({"params": params}, forward["x"], forward["t"], train=False)
    expected = forward[f"out_{which}"]
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
