"""Embeddings, normalisations, pooling and initialisers."""

import functools
from typing import Any

import flax.linen as nn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.jax import networks
from score_core.jax.networks import layers, normalization, refine
from score_core.jax.networks.blocks import Conv2d
from score_core.noise_scales import model_sigmas

GOLDEN = goldens.load("core", "resample_embed.npz")
KEY = jax.random.key(0)


@pytest.mark.parametrize("dim", [8, 9, 128])
def test_timestep_embedding(dim):
    found = layers.timestep_embedding(jnp.asarray(GOLDEN["timestep_embedding/t"]), dim)
    np.testing.assert_allclose(found, GOLDEN[f"timestep_embedding/{dim}"], rtol=0, atol=1e-6)


def test_timestep_embedding_needs_four_features():
    with pytest.raises(ValueError, match="at least 4"):
        layers.timestep_embedding(jnp.ones(2), 3)


@pytest.mark.parametrize("name", ["ve/cifar10_ncsnpp.py", "ve/ncsn/cifar10.py", "ve/church_ncsnpp_continuous.py"])
def test_noise_levels_of_the_networks(name, official_config):
    model = official_config(name).model
    found = model_sigmas(model.sigma_min, model.sigma_max, model.num_scales)
    np.testing.assert_allclose(found, GOLDEN[f"model_sigmas/{name.replace('/', '_')}"], rtol=1e-6)


def params_of(layer, *inputs) -> Any:
    return layer.init(KEY, *inputs)["params"]


def sample(init, shape):
    return np.asarray(init(KEY, shape, jnp.float32))


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.0), (0.1, 0.1), (0.0, 1e-10)])
@pytest.mark.parametrize("shape", [(3, 3, 32, 64), (1, 1, 100, 40), (200, 50)])
def test_default_init_is_uniform_with_the_average_fan(shape, scale, expected):
    draws = sample(layers.default_init(scale), shape)
    window = np.prod(shape[:-2])
    limit = np.sqrt(3 * expected / (window * (shape[-2] + shape[-1]) / 2))
    assert 0.98 * limit < np.abs(draws).max() <= limit
    np.testing.assert_allclose(draws.std(), limit / np.sqrt(3), rtol=0.05)


@pytest.mark.parametrize("size", [1, 3])
def test_ncsn_convolutions_draw_kernel_and_bias_with_one_limit(size):
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.ncsn_conv(x, 500, size=size)

    params = params_of(Layer(), jnp.zeros((1, 4, 4, 12)))["Conv_0"]
    limit = 1 / np.sqrt(size * size * 12)
    for draws in params.values():
        assert 0.95 * limit < np.abs(draws).max() <= limit
        np.testing.assert_allclose(draws.std(), limit / np.sqrt(3), rtol=0.05)


def test_initial_values_of_ncsnpp():
    model = networks.NCSNpp(nf=16, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    params = goldens.flatten(jax.jit(functools.partial(networks.init_params, model, image_shape=(8, 8, 3)))(KEY))
    for name, value in params.items():
        value, last = np.asarray(value), name.rsplit("/", 1)[-1]
        if last in ("bias", "b"):
            assert not value.any(), name
        elif last == "scale":
            assert (value == 1).all(), name
        elif name == "GaussianFourierProjection_0/W":
            assert 8 < value.std() < 24
        else:
            scale = 0.1 if last == "W" else 1.0
            tiny = ("ResnetBlockBigGANpp" in name and "Conv_1/" in name) or name.endswith(("NIN_3/W", "Conv_1/kernel"))
            fans = np.prod(value.shape[:-2]) * (value.shape[-2] + value.shape[-1]) / 2
            limit = np.sqrt(3 * (1e-10 if tiny else scale) / fans)
            # The largest of n uniform draws is below 0.7 of the limit with probability 0.7^n.
            assert 0.7 * limit < np.abs(value).max() <= limit, name


def test_the_fir_convolution_starts_like_the_others():
    params = params_of(Conv2d(64, up=True, fir_kernel=(1, 3, 3, 1)), jnp.zeros((1, 4, 4, 32)))
    limit = np.sqrt(3 / (9 * 48))
    assert 0.98 * limit < np.abs(params["weight"]).max() <= limit
    assert not params["bias"].any()


def test_initial_values_of_the_classifier():
    model = networks.WideResnet(blocks_per_group=1, channel_multiplier=1)
    params = goldens.flatten(jax.jit(functools.partial(networks.init_params, model, image_shape=(8, 8, 3)))(KEY))
    kernel = params["WideResnetGroup_2/WideResnetBlock_0/conv2/kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.02)
    output = np.abs(params["Dense_2/kernel"])
    assert 0.98 / np.sqrt(10) < output.max() <= 1 / np.sqrt(10)


def test_instance_norm_scales_start_around_one():
    params = params_of(normalization.InstanceNorm2dPlus(), jnp.zeros((1, 2, 2, 5000)))
    for name in ("alpha", "gamma"):
        assert params[name].shape == (1, 1, 1, 5000)
        np.testing.assert_allclose([params[name].mean(), params[name].std()], [1, 0.02], rtol=0.04)
    assert not params["beta"].any()


def test_conditional_norm_table_starts_around_one_and_zero():
    layer = normalization.ConditionalInstanceNorm2dPlus(50)
    params = params_of(layer, jnp.zeros((1, 2, 2, 100)), jnp.zeros(1, jnp.int32))
    table = np.asarray(params["Embed_0"]["embedding"])
    assert table.shape == (50, 300)
    np.testing.assert_allclose([table[:, :200].mean(), table[:, :200].std()], [1, 0.02], rtol=0.04)
    assert not table[:, 200:].any()


def test_instance_norm_has_zero_mean_and_unit_variance():
    x = 3 + 2 * jax.random.normal(KEY, (2, 8, 8, 4))
    layer = normalization.InstanceNorm2d()
    params = params_of(layer, x)
    assert {key: value.shape for key, value in params.items()} == {"scale": (1, 1, 1, 4), "bias": (1, 1, 1, 4)}
    y: Any = layer.apply({"params": params}, x)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), 1, rtol=1e-4)


def test_group_norm_survives_a_variance_rounded_below_zero():
    x = jnp.full((1, 4, 4, 32), 4321.123) * (1 + 1e-7 * jax.random.normal(KEY, (1, 4, 4, 32)))
    y, _ = normalization.GroupNorm(num_groups=8).init_with_output(KEY, x)
    assert jnp.isfinite(y).all()


@pytest.mark.parametrize("groups", [32, None])
def test_group_norm_of_an_unsuitable_width(groups):
    channels = 48 if groups else 3
    with pytest.raises(ValueError, match=f"{channels} channels"):
        normalization.GroupNorm(num_groups=groups).init(KEY, jnp.zeros((1, 2, 2, channels)))


def test_maximum_pool_is_a_window_maximum_also_in_its_gradient_at_ties():
    # Rectified values tie at zero: the gradient goes to the first, in both forms.
    x = nn.relu(jax.random.normal(KEY, (2, 7, 6, 3)))
    cotangent = jax.random.normal(jax.random.key(1), x.shape)

    def window(x):
        return nn.max_pool(x, (5, 5), (1, 1), "SAME")

    expected, expected_vjp = jax.vjp(window, x)
    found, found_vjp = jax.vjp(refine.max_pool_5x5, x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found_vjp(cotangent)[0], expected_vjp(cotangent)[0], rtol=0, atol=1e-5)


def test_mean_pool_divides_by_25_everywhere():
    pooled = refine.avg_pool_5x5(jnp.ones((1, 6, 6, 1)))[0, :, :, 0]
    np.testing.assert_allclose(pooled[0, 0], 9 / 25, rtol=1e-6)
    np.testing.assert_allclose(pooled[2, 3], 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("lookup", "known"),
    [
        (layers.get_activation, "swish"),
        (normalization.get_normalization, "InstanceNorm"),
        (refine.interpolation_method, "nearest_neighbor"),
    ],
)
def test_unknown_names_list_the_known_ones(lookup, known):
    with pytest.raises(ValueError, match=f"'nonsense'.*{known}"):
        lookup("nonsense")
    lookup(known)


def test_activation_names_in_any_case():
    assert layers.get_activation("Swish") is layers.get_activation("swish")
    np.testing.assert_allclose(layers.get_activation("LReLU")(jnp.asarray([-1.0, 2.0])), [-0.2, 2.0])
