"""The losses of all orders in PyTorch: at the original's noise with its values and gradients, and JAX's at a key."""

import goldens
import hdsm_cases
import jax
import numpy as np
import pytest
import torch

from score_core.parameterization import get_score_fn
from score_core.torch.networks import create_model, load_flax_tree, to_flax_tree
from score_core.torch.threefry import prng_key
from score_core.torch.training import get_apply_fn
from score_flow_hdsm import losses, losses_torch
from score_flow_hdsm.sdes import VESDE

FACTS = hdsm_cases.load("losses_hdsm.json")
GOLDEN = hdsm_cases.load("losses_hdsm.npz")
CASES = [case for case in FACTS if "mean1" in case]


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def setting(facts):
    config = hdsm_cases.published(facts["base_config"], "mle_score_ode", hdsm_cases.LOSS_NETWORK)
    with config.unlocked(), config.ignore_type():
        for key, value in facts["tiny_overrides"].items():
            section, name = key.split(".")
            config[section][name] = tuple(value) if isinstance(value, list) else value
    apply, params = hdsm_cases.network_of(config)
    model = create_model(config, "jax")
    load_flax_tree(model, params)
    return config, model, (apply, params)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_match_the_original_at_its_noise(case):
    facts = FACTS[case]
    config, model, _ = setting(facts)
    sde, apply = hdsm_cases.sde_of(config), get_apply_fn(model)
    draws = losses_torch.Draws(
        torch.from_numpy(GOLDEN[f"{case}/t"]),
        tensor(GOLDEN[f"{case}/z"]),
        tensor(GOLDEN.get(f"{case}/v", np.ones_like(GOLDEN[f"{case}/z"]))),
        0,
    )
    parts = losses_torch.loss_parts(
        sde,
        get_score_fn(sde, lambda x, labels: apply(None, x, labels, train=True), True),
        tensor(GOLDEN[f"{case}/image"]),
        draws,
        order=facts["order"],
        likelihood_weighting=facts["likelihood_weighting"],
        importance=facts["likelihood_weighting"] and facts["importance_weighting"],
    )
    np.testing.assert_allclose([float(part.mean().detach()) for part in parts], facts["loss123"], rtol=1e-4)
    parts.total.mean().backward()
    squares = sum(float((p.grad.double() ** 2).sum()) for p in model.parameters() if p.grad is not None)
    np.testing.assert_allclose(squares**0.5, facts["grad_norm"], rtol=1e-4 if facts["order"] == 1 else 1e-3)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.grad if p.grad is not None else torch.zeros_like(p))
    flat = goldens.flatten(to_flax_tree(model))
    for name in (key.partition("/grad/")[2] for key in GOLDEN if key.startswith(f"{case}/grad/")):
        expected = GOLDEN[f"{case}/grad/{name}"]
        np.testing.assert_allclose(flat[name], expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["hdsm_vp_o3_lw1_iw1_mean1", "hdsm_ve_o2_lw1_iw0_mean1"])
def test_a_key_gives_the_losses_of_jax(case):
    facts = FACTS[case]
    config, model, (apply, params) = setting(facts)
    options = {name: facts[name] for name in ("order", "likelihood_weighting", "importance_weighting", "eps")}
    sde, image = hdsm_cases.sde_of(config), GOLDEN[f"{case}/image"]
    expected = losses.get_loss_parts_fn(sde, apply, **options)(params, jax.random.PRNGKey(7), image, False)
    ours = losses_torch.get_loss_parts_fn(sde, get_apply_fn(model), **options)
    with torch.no_grad():
        actual = ours(None, prng_key(7), tensor(image), False)
        # The numbers of an image do not depend on how the batch is divided.
        last = ours(None, prng_key(7), tensor(image)[1:], False, 1)
    for one, other, part in zip(expected, actual, last, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(other[1:].numpy(), part.numpy(), rtol=1e-4, atol=1e-6)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="must be 1, 2 or 3"):
        losses_torch.get_loss_parts_fn(VESDE(), None, order=4)
    with pytest.raises(ValueError, match="reduce_mean = True"):
        losses_torch.get_loss_parts_fn(VESDE(), None, order=3, reduce_mean=False)
    with pytest.raises(TypeError, match="give a key"):
        losses_torch.get_loss_fn(VESDE(), None)(None, torch.Generator(), torch.zeros(1, 1, 1, 1), False)
