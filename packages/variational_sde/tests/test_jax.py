"""The JAX wing gives the original's numbers and the PyTorch wing's at the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from variational_golden import TINY, case, close, filled, golden, net, plugin, tensor

from score_core.jax.noise import PerSampleNoise
from score_core.random import RecordedNoise
from score_core.torch import noise as torch_noise
from score_core.torch.threefry import prng_key
from variational_sde.jax.mlp import MLP
from variational_sde.jax.reverse_sde import draw_dsm_noise, dsm, elbo, image_noise, mean_dsm
from variational_sde.jax.sampling import euler_maruyama, ode_log_likelihood
from variational_sde.jax.unet import UNet, params_from_torch, params_to_torch
from variational_sde.objectives import DsmNoise, ElboNoise
from variational_sde.sde import VariancePreserving
from variational_sde.times import DebiasedTimes
from variational_sde.torch import mlp as torch_mlp
from variational_sde.torch.evaluation import image_noise as torch_image_noise
from variational_sde.torch.likelihood import ode_log_likelihood as torch_ode_log_likelihood
from variational_sde.torch.sampling import euler_maruyama as torch_euler_maruyama


def last(images):
    """Channels last."""
    return jnp.asarray(np.moveaxis(np.asarray(images), 1, -1)) if np.ndim(images) == 4 else jnp.asarray(images)


def both(name):
    """The network in both wings with the fill rule's parameters."""
    network = net(name)
    options = {key: tuple(v) if isinstance(v, (list, tuple)) else v for key, v in TINY[name].items()}
    module = UNet(**options)
    params = params_from_torch({key: value.numpy() for key, value in network.state_dict().items()})
    return network, jax.jit(lambda p, y, s: module.apply({"params": p}, y, s)), params


@pytest.mark.parametrize("name", ["a", "b", "d"])
def test_the_network_gives_the_originals_outputs_and_gradients(name):
    arrays = golden(f"net_tiny_{name}.npz")
    _, apply_fn, params = both(name)
    x, t, w = last(arrays["x"]), jnp.asarray(arrays["t"]), last(arrays["w"])

    @jax.jit
    def forward_and_back(x, w):
        y, pull = jax.vjp(lambda x: apply_fn(params, x, t), x)
        return y, pull(w)[0]

    y, gradient = forward_and_back(x, w)
    close(y, last(arrays["y"]), 1e-5)
    close(gradient, last(arrays["grad_x"]), 3e-5)


def test_fresh_parameters_have_the_names_shapes_and_widths_of_the_other_wing():
    inputs = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1,))
    shapes = jax.eval_shape(UNet(**TINY["a"]).init, jax.random.key(0), *inputs)["params"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    assert {key: value.shape for key, value in params_to_torch(zeros).items()} == {
        key: tuple(value.shape) for key, value in net("a").state_dict().items()
    }
    small = UNet(3, 8, 32, ch_mult=(1,), num_res_blocks=0)
    state = params_to_torch(jax.jit(small.init)(jax.random.key(0), *inputs)["params"])
    weight = state["mid_modules.0.conv1.weight"]
    assert np.abs(weight).max() <= np.sqrt(3 / (32 * 9)) < 1.02 * np.abs(weight).max()
    assert 0 < np.abs(state["end_conv.2.weight"]).max() < 1e-5
    for key, value in params_to_torch(params_from_torch(state)).items():
        np.testing.assert_array_equal(value, state[key])


@pytest.mark.parametrize("name", ["tiny_a_debias", "tiny_b_T0.5"])
def test_dsm(name):
    arrays = case(golden("dsm.npz"), name)
    _, apply_fn, params = both(name.split("_")[1])
    sde = VariancePreserving(T=float(arrays["T0"]))
    if arrays["debias"]:
        close(DebiasedTimes(sde).inverse_cdf(jnp.asarray(arrays["time_u"])), arrays["t"], 2e-6)
    noise = DsmNoise(jnp.asarray(arrays["t"]).reshape(-1), last(arrays["eps"]))
    x = last(arrays["x"])
    close(dsm(sde, apply_fn, params, x, noise), arrays["loss_per_sample"], 1e-5)
    gradient = jax.jit(jax.grad(lambda p: mean_dsm(sde, apply_fn, p, x, noise)))(params)
    gradient = params_to_torch(gradient)
    for key in ("begin_conv.weight", "end_conv.2.weight"):
        value = arrays[f"grad/{key}"]
        close(gradient[key].reshape(-1)[: value.size], value, 5e-5, key)


@pytest.mark.parametrize("name", ["tiny_a_real_rademacher", "tiny_a_unit_gaussian"])
def test_elbo(name):
    arrays = case(golden("elbo.npz"), name)
    _, apply_fn, params = both(name.split("_")[1])
    sde = VariancePreserving(T=float(arrays["T0"]))
    noise = ElboNoise(jnp.asarray(arrays["t"]).reshape(-1), *(last(arrays[key]) for key in ("eps_t", "v", "eps_T")))
    terms = jax.jit(lambda x: elbo(sde, apply_fn, params, x, noise))(last(arrays["x"]))
    close(terms.log_prior, arrays["log_prior"], 5e-6)
    close(terms.divergence, arrays["div_term"], 1e-5)
    close(terms.energy, arrays["quad_term"], 1e-5)
    close(terms.elbo, arrays["elbo"], 1e-5)


def test_noise_of_an_image_is_the_same_in_both_wings():
    u, noise = image_noise(jax.random.PRNGKey(7), jnp.arange(3, 6), (4, 4, 2), "rademacher", 0.5)
    other_u, other = torch_image_noise(prng_key(7), torch.arange(3, 6), (2, 4, 4), "rademacher", 0.5)
    close(u, last(other_u), 0)
    close(noise.t, other.t, 1e-7)
    close(noise.v, last(other.v), 0)
    for one, two in ((noise.e, other.e), (noise.e_T, other.e_T)):
        close(one, last(two), 2e-6)


def test_the_lambda_family():
    arrays = golden("sampler_lambda_unet.npz")
    network, apply_fn, params = both("a")
    x0, steps = arrays["x0"], int(arrays["num_steps"])
    draws = np.random.RandomState(0).standard_normal((steps, *x0.shape)).astype(np.float32)
    recorded = RecordedNoise(tensor(x0), None, tensor(draws))
    noise = RecordedNoise(last(x0), None, jnp.asarray(np.moveaxis(draws, 2, -1)))
    sde, model = VariancePreserving(), plugin(network)
    for lmbd in (0.0, 0.5, 1.0, -0.5):
        expected = torch_euler_maruyama(model, recorded, steps, lmbd=lmbd, keep=range(1, steps + 1))
        states = euler_maruyama(sde, apply_fn, params, noise, steps, lmbd=lmbd, trajectory=True)
        close(np.moveaxis(np.asarray(states), -1, 2), expected, 1e-5)


def test_samples_do_not_depend_on_the_wing():
    """Per-sample streams: the same key, the same samples."""
    network, apply_fn, params = both("a")
    noise = PerSampleNoise(jax.random.PRNGKey(3), jnp.arange(2), (8, 8, 3))
    images = euler_maruyama(VariancePreserving(), apply_fn, params, noise, 4)
    other = torch_euler_maruyama(
        plugin(network), torch_noise.PerSampleNoise(prng_key(3), torch.arange(2), (3, 8, 8)), 4
    )
    close(images, last(other), 2e-5)
    with pytest.raises(ValueError, match="<= 1"):
        euler_maruyama(VariancePreserving(), apply_fn, params, noise, 4, lmbd=2.0)


def test_ode_likelihood_of_the_trained_swissroll_network():
    trained = golden("swissroll_trained.npz")
    weights = {key.removeprefix("weight/"): value for key, value in trained.items() if key.startswith("weight/")}
    network = torch_mlp.MLP()
    network.load_state_dict({key: tensor(value) for key, value in weights.items()})
    x = golden("swissroll.npz")["roll"][:16]
    v = np.sign(np.random.RandomState(0).standard_normal(x.shape)).astype(np.float32)
    expected = torch_ode_log_likelihood(plugin(network), tensor(x), tensor(v))
    module = MLP()
    nats, nfe = ode_log_likelihood(
        VariancePreserving(),
        lambda p, y, s: module.apply({"params": p}, y, s),
        params_from_torch(weights),
        jnp.asarray(x),
        jnp.asarray(v),
    )
    np.testing.assert_allclose(nats, expected.nats, atol=5e-3)
    assert abs(nfe - expected.nfe) <= 60


def test_training_noise():
    sde = VariancePreserving()
    x = jnp.zeros((4000, 2))
    uniform = draw_dsm_noise(jax.random.key(0), x, sde, None)
    debiased = draw_dsm_noise(jax.random.key(0), x, sde, DebiasedTimes(sde))
    assert float(uniform.t.mean()) == pytest.approx(0.5, abs=0.03)
    # half of the debiased times are below the median of their law
    median = float(DebiasedTimes(sde).inverse_cdf(jnp.array([0.5]))[0])
    assert float((debiased.t < median).mean()) == pytest.approx(0.5, abs=0.03)
    assert uniform.e.shape == x.shape


def test_mlp():
    arrays = golden("swissroll.npz")
    network = filled(torch_mlp.MLP())
    params = params_from_torch({key: value.numpy() for key, value in network.state_dict().items()})
    out = MLP().apply({"params": params}, jnp.asarray(arrays["roll"][:8]), jnp.asarray(arrays["t"]).reshape(-1))
    close(out, arrays["mlp_out"], 2e-6)
