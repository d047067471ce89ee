"""The same parameters in the Flax and in the PyTorch networks give the same numbers."""

from typing import Any

import goldens
import jax
import numpy as np
import pytest
import torch

from score_core.jax import networks as jax_networks
from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves

CASES = goldens.load("score_sde", "networks.json")
VERIFIED = goldens.load("score_sde", "jax_to_torch_verification.json")
SHARED = [*VERIFIED, "ncsnv2_64", "ncsn_v1"]


@pytest.fixture(scope="module", autouse=True)
def keep_compiled_operations():
    """Hundreds of small operations are compiled here: keep them on disk, however quick each one was."""
    option = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, option)
    jax.config.update(option, 0.0)
    yield
    jax.config.update(option, before)


def test_all_verified_variants_are_among_the_cases():
    assert set(VERIFIED) <= set(CASES)
    assert sum("relative" in facts for facts in VERIFIED.values()) == 23


@pytest.mark.parametrize("name", SHARED)
def test_equal_outputs(name, official_config):
    """The 23 variants compared when the goldens were made, those the PyTorch program could not run, and RefineNets."""
    case = CASES[name]
    config = official_config(case["config"], case["overrides"])
    model = networks.create_model(config, flavor="jax").eval()
    with torch.no_grad():
        for leaf in flax_leaves(model).values():
            # Unlike in the golden files: by path and with the shape here.
            leaf.parameter.copy_(torch.tensor(goldens.fill(f"both/{leaf.path}", tuple(leaf.parameter.shape))))
    size, channels = config.data.image_size, config.data.num_channels
    random = np.random.default_rng(0)
    x = random.random((2, size, size, channels), np.float32)
    labels = {
        "sigma": np.asarray([0.3, 4.0], np.float32),
        "float": np.asarray([12.5, 700.0], np.float32),
        "int": np.asarray([1, 7], np.int32),
    }[case["label_kind"]]
    with torch.inference_mode():
        found = model(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(labels)).permute(0, 2, 3, 1)

    theirs = jax_networks.create_model(config)
    expected: Any = theirs.apply({"params": networks.to_flax_tree(model)}, x, labels, train=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
