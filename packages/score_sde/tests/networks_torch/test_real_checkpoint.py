"""Checkpoints written by both original programs' training loops, through our network."""

from typing import Any

import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.torch_names import torch_names
from score_core.torch import networks


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("which", ["params", "ema"])
def test_jax_program(which, official_config):
    tree = goldens.load("score_sde", "checkpoint_real/tree.json")
    forward = goldens.load("score_sde", "checkpoint_real/forward.npz")
    state = msgpack_format.loads(goldens.path("score_sde", "checkpoint_real/checkpoint_1").read_bytes())
    config = official_config(tree["config"], {key: value for key, value in tree["overrides"].items() if "." in key})
    model = networks.create_model(config, flavor="jax").eval()
    networks.load_flax_tree(model, state["optimizer"]["target"] if which == "params" else state["params_ema"])
    with torch.inference_mode():
        out = model(torch.tensor(forward["x"]).permute(0, 3, 1, 2), torch.tensor(forward["t"]))
    assert_close(out.permute(0, 2, 3, 1), forward[f"out_{which}"])


@pytest.mark.parametrize("case", ["ve_ncsnpp_continuous", "vp_ddpmpp_continuous"])
@pytest.mark.parametrize("which", ["raw", "ema"])
def test_pytorch_program(which, case, official_config):
    """From their file to our network by way of the names, and back to their arrays."""
    facts = goldens.load("score_sde", f"torch/checkpoint_{case}.json")
    forward = goldens.load("score_sde", f"torch/checkpoint_{case}.npz")
    # Their learning rate is a NumPy number: three harmless names more than weights_only knows.
    scalar = getattr(np, "_core").multiarray.scalar  # noqa: B009 (under the name of the NumPy of that time)
    allowed: list[Any] = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType]
    with torch.serialization.safe_globals(allowed):
        state = torch.load(goldens.path("score_sde", f"torch/checkpoint_{case}.pth"), weights_only=True)

    config = official_config(facts["base"], facts["overrides"])
    model = networks.create_model(config).eval()
    weights = {key.removeprefix("module."): value for key, value in state["model"].items()}
    np.testing.assert_allclose(model.get_buffer("sigmas"), weights.pop("sigmas"), rtol=1e-7)
    if which == "ema":
        # Their list is in the order of their parameters and leaves out the one that is not trained.
        trained = [key for key in weights if key != "all_modules.0.W"]
        weights |= dict(zip(trained, state["ema"]["shadow_params"], strict=True))

    names = torch_names(config)
    assert {name.torch_key for name in names} == set(weights)
    flat = {name.jax_path: name.transform.from_torch(weights[name.torch_key].numpy()) for name in names}
    networks.load_flax_tree(model, goldens.unflatten(flat))
    with torch.inference_mode():
        out = model(torch.tensor(forward["x"]), torch.tensor(forward["labels"]))
    assert_close(out, forward[f"out_{which}_weights"])

    back = goldens.flatten(networks.to_flax_tree(model))
    for name in names:
        np.testing.assert_array_equal(name.transform.to_torch(back[name.jax_path]), weights[name.torch_key])
