"""The noise-conditional classifier and its gradient."""

import functools
import json

import goldens
import jax
import numpy as np
import pytest

from score_core.jax import networks
from score_core.jax.networks.wideresnet import get_classifier_grad_fn, get_logit_fn

GOLDEN = goldens.load("score_sde", "wideresnet.npz")


@pytest.mark.parametrize("blocks", [1, 2])
def test_logits_and_classifier_gradient(blocks):
    golden = {key.removeprefix(f"b{blocks}/"): value for key, value in GOLDEN.items() if key.startswith(f"b{blocks}/")}
    model = networks.WideResnet(blocks_per_group=blocks, channel_multiplier=1)
    init = functools.partial(networks.init_params, model, image_shape=golden["x"].shape[1:])
    shapes = jax.eval_shape(init, jax.random.key(0))
    flat = goldens.flatten(shapes)
    assert sorted([key, list(value.shape)] for key, value in flat.items()) == sorted(json.loads(str(golden["keys"])))

    params = goldens.fill_tree(shapes)
    logit_fn = get_logit_fn(model, params)
    results = {
        "logits_raw": model.apply({"params": params}, golden["x"], golden["sigma"], train=False),
        "logits_preprocessed": logit_fn(golden["x"], golden["sigma"]),
        "class_grad": get_classifier_grad_fn(logit_fn)(golden["x"], golden["sigma"], golden["labels"]),
    }
    for name, found in results.items():
        tolerance = 1e-4 if name == "class_grad" else 1e-5
        np.testing.assert_allclose(
            found, golden[name], rtol=0, atol=tolerance * np.abs(golden[name]).max(), err_msg=name
        )
