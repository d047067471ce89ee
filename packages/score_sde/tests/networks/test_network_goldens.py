"""Every network against the original's numbers: output, gradients, parameter names and shapes."""

import functools
import re

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.jax import networks

CASES = goldens.load("score_sde", "networks.json")
KEYS = goldens.load("score_sde", "networks_keys.json")


@functools.cache
def arrays():
    return goldens.load("score_sde", "networks.npz")


def build(name, official_config):
    """The model of a case, its inputs and its filled parameters."""
    case = CASES[name]
    config = official_config(case["config"], case["overrides"])
    model = networks.create_model(config)
    golden = {key.removeprefix(f"{name}/"): value for key, value in arrays().items() if key.startswith(f"{name}/")}
    shape = golden["x"].shape[1:]
    shapes = jax.eval_shape(functools.partial(networks.init_params, model, image_shape=shape), jax.random.key(0))
    return model, golden, shapes


def probed(model, params, x, golden):
    out = model.apply({"params": params}, x, golden["t"], train=False)
    return jnp.sum(out * golden["probe"]), out


def has_zero_gradient(name, case, shape):
    """Parameters whose gradient vanishes analytically, so that what is stored is rounding.

    A shift of all keys leaves the softmax as it is; a constant added to a channel leaves a GroupNorm with one channel a
    group as it is (ddpm, 32 groups of 32 channels): inside the blocks, and after the last one.
    """
    if name.endswith("NIN_1/b"):
        return True
    if not case.startswith("ddpm_") or case == "ddpm_instancenormpp" or shape[-1] != 32:
        return False
    blocks = {int(found[1]) for key, _ in KEYS[case] if (found := re.match(r"ResnetBlockDDPM_(\d+)/", key))}
    shifts = rf"ResnetBlockDDPM_(\d+/(Conv_0/bias|Dense_0/)|{max(blocks)}/(Conv_1/bias|NIN_0/b))"
    return re.match(shifts, name) is not None


@pytest.mark.parametrize("name", CASES)
def test_parameter_tree_outputs_and_gradients(name, official_config):
    """Outputs to 1e-5, gradients to 1e-4 of the largest value; op by op, as the cases then share what is compiled."""
    model, golden, shapes = build(name, official_config)
    tree = {key: list(value.shape) for key, value in goldens.flatten(shapes).items()}
    assert tree == dict(KEYS[name])

    params = goldens.fill_tree(shapes)
    gradient = jax.value_and_grad(functools.partial(probed, model), argnums=(0, 1), has_aux=True)
    (_, out), (grad_params, grad_x) = gradient(params, jnp.asarray(golden["x"]), golden)

    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, golden["out"], rtol=0, atol=1e-5 * np.abs(golden["out"]).max())
    np.testing.assert_allclose(grad_x, golden["grad_x"], rtol=0, atol=1e-4 * np.abs(golden["grad_x"]).max())

    flat = {key: np.asarray(value, np.float64) for key, value in goldens.flatten(grad_params).items()}
    norm = np.sqrt(sum(np.sum(value**2) for value in flat.values()))
    np.testing.assert_allclose(norm, golden["grad_norm"], rtol=1e-4)
    for (key, shape), expected in zip(KEYS[name], golden["grad_sums"], strict=True):
        found = np.asarray([flat[key].sum(), np.abs(flat[key]).sum()])
        if has_zero_gradient(key, name, shape):
            assert max(found[1], expected[1]) < 1e-5 * golden["grad_norm"], key
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected[1], err_msg=key)


@pytest.mark.parametrize("name", ["ncsnpp_256_output_skip_input_skip", "ncsnv2_64"])
def test_compiled_network_gives_the_same_numbers(name, official_config):
    model, golden, shapes = build(name, official_config)
    params = goldens.fill_tree(shapes)
    out = jax.jit(model.apply, static_argnames="train")({"params": params}, golden["x"], golden["t"], train=False)
    np.testing.assert_allclose(out, golden["out"], rtol=0, atol=1e-5 * np.abs(golden["out"]).max())


def test_fourier_frequencies_get_no_gradient(official_config):
    model, golden, shapes = build("ncsnpp_ve_continuous", official_config)
    grads, _ = jax.grad(functools.partial(probed, model), has_aux=True)(goldens.fill_tree(shapes), golden["x"], golden)
    assert not np.any(np.asarray(grads["GaussianFourierProjection_0"]["W"]))
