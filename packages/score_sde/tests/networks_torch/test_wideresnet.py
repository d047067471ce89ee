"""The noise-conditional classifier and its gradient."""

import goldens
import numpy as np
import pytest
import torch

from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.networks.wideresnet import get_classifier_grad_fn, get_logit_fn

GOLDEN = goldens.load("score_sde", "wideresnet.npz")


@pytest.mark.parametrize("blocks", [1, 2])
def test_logits_and_classifier_gradient(blocks):
    golden = {key.removeprefix(f"b{blocks}/"): value for key, value in GOLDEN.items() if key.startswith(f"b{blocks}/")}
    model = networks.WideResnet(blocks_per_group=blocks, channel_multiplier=1).eval()
    tree = {leaf.path: goldens.fill(leaf.path, leaf.shape) for leaf in flax_leaves(model).values()}
    networks.load_flax_tree(model, goldens.unflatten(tree))
    x = torch.tensor(golden["x"]).permute(0, 3, 1, 2)
    sigma, labels = torch.tensor(golden["sigma"]), torch.tensor(golden["labels"])
    logit_fn = get_logit_fn(model)
    with torch.inference_mode():
        raw = model(x, sigma)
    with torch.no_grad():  # as inside a sampler
        gradient = get_classifier_grad_fn(logit_fn)(x, sigma, labels)
    results = {
        "logits_raw": raw,
        "logits_preprocessed": logit_fn(x, sigma).detach(),
        "class_grad": gradient.permute(0, 2, 3, 1),
    }
    for name, found in results.items():
        tolerance = 1e-4 if name == "class_grad" else 1e-5
        np.testing.assert_allclose(
            found, golden[name], rtol=0, atol=tolerance * np.abs(golden[name]).max(), err_msg=name
        )


def test_published_classifier():
    expected = goldens.load("score_sde", "params_wideresnet_noise_conditional.json")
    with torch.device("meta"):
        model = networks.WideResnet()
    found = {leaf.path: list(leaf.shape) for leaf in flax_leaves(model).values()}
    assert found == {key: shape for key, shape, _ in expected["params"]}
    assert sum(parameter.numel() for parameter in model.parameters()) == 38_913_242
