"""The table of models, what they refuse, dropout and computation in bfloat16."""

import functools
from typing import Any

import flax.linen as nn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.jax import networks

TINY: dict[str, Any] = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "init_scale": 1.0}
X = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
SIGMA = jnp.asarray([0.1, 2.0])


def shapes_of(model):
    return jax.eval_shape(functools.partial(networks.init_params, model, image_shape=(8, 8, 3)), jax.random.key(0))


def filled(model):
    return {"params": goldens.fill_tree(shapes_of(model))}


def apply(model, variables, *inputs, **options) -> Any:
    return model.apply(variables, *inputs, **options)


def test_unknown_model_lists_the_known_ones(official_config):
    config = official_config("ve/cifar10_ncsnpp.py", {"model.name": "unet"})
    with pytest.raises(ValueError, match=r"'unet'.*ddpm.*ncsnpp"):
        networks.create_model(config)


def test_users_register_a_model(official_config, monkeypatch):
    monkeypatch.setattr(networks, "MODELS", dict(networks.MODELS))

    @networks.register_model(name="mine")
    class Mine(nn.Module):
        config: Any

        @nn.compact
        def __call__(self, x, labels, train=False):
            return x * self.config.model.sigma_min

    config = official_config("ve/cifar10_ncsnpp.py", {"model.name": "mine"})
    model = networks.create_model(config)
    np.testing.assert_allclose(apply(model, {}, X, SIGMA), X * 0.01)
    with pytest.raises(ValueError, match="already registered"):
        networks.register_model(name="ncsnpp")(Mine)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progressive", "both"),
        ("progressive_input", "output_skip"),
        ("progressive_combine", "product"),
        ("resblock_type", "biggest"),
        ("embedding_type", "learned"),
    ],
)
def test_ncsnpp_names_the_field_and_its_choices(field, value):
    with pytest.raises(ValueError, match=rf"model\.{field} is '{value}', known: "):
        networks.NCSNpp(**{field: value})


def test_choices_in_any_case():
    model = networks.NCSNpp(embedding_type="Positional", resblock_type="BigGAN")
    assert (model.embedding_type, model.resblock_type) == ("positional", "biggan")


def test_fourier_embedding_needs_continuous_training():
    with pytest.raises(ValueError, match=r"training\.continuous"):
        networks.NCSNpp(continuous=False)


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 8, 9, 3), (8, 8, 3)])
def test_unsuitable_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\] with H and W divisible by 2"):
        jax.eval_shape(networks.NCSNpp(**TINY).init, jax.random.key(0), jnp.zeros(shape), SIGMA)


@pytest.mark.parametrize("model", [networks.DDPM(nf=32, ch_mult=(1,), scale_by_sigma=True), networks.NCSNv2_64(nf=4)])
def test_float_labels_are_no_index_of_a_noise_level(model):
    with pytest.raises(TypeError, match="float32"):
        jax.eval_shape(model.init, jax.random.key(0), X, SIGMA)


def test_interpolation_is_checked():
    with pytest.raises(ValueError, match=r"bicubic.*bilinear"):
        jax.eval_shape(networks.NCSNv2_64(nf=4, interpolation="bicubic").init, jax.random.key(0), X, jnp.ones(2, int))


def test_ncsn_takes_num_scales_where_the_config_lacks_num_classes(official_config):
    assert networks.create_model(official_config("ve/ncsn/cifar10_124.py")).num_classes == 232
    config = official_config("ve/ncsn/cifar10_124.py", {"model.num_classes": 300})
    assert networks.create_model(config).num_classes == 300
    with pytest.raises(ValueError, match="fewer than the 232 noise levels"):
        networks.create_model(official_config("ve/ncsn/cifar10_124.py", {"model.num_classes": 7}))


@pytest.mark.parametrize("resblock_type", ["ddpm", "biggan"])
def test_dropout_only_in_training_and_from_its_own_key(resblock_type):
    model = networks.NCSNpp(**TINY, dropout=0.5, resblock_type=resblock_type).clone(ch_mult=(1,))
    variables = filled(model)

    def trained(seed):
        return apply(model, variables, X, SIGMA, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(trained(0), trained(0))
    assert jnp.abs(trained(0) - trained(1)).max() > 0
    assert jnp.abs(trained(0) - apply(model, variables, X, SIGMA, train=False)).max() > 0


@pytest.mark.parametrize(
    "model",
    [
        networks.NCSNpp(**TINY, progressive="output_skip", progressive_input="input_skip"),
        networks.NCSNpp(**TINY, progressive="residual", resblock_type="ddpm"),
        networks.DDPM(nf=32, ch_mult=(1,), attn_resolutions=(8,)),
        networks.NCSN(nf=8),
        networks.WideResnet(blocks_per_group=1, channel_multiplier=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_bfloat16_keeps_float32_parameters_and_outputs(model):
    labels = SIGMA if isinstance(model, networks.NCSNpp | networks.WideResnet) else jnp.asarray([1, 5])
    variables = filled(model)
    half = model.clone(dtype=jnp.bfloat16)
    assert shapes_of(half) == shapes_of(model)  # shapes and types
    expected = apply(model, variables, X, labels)
    found = apply(half, variables, X, labels)
    assert found.dtype == jnp.float32
    error = jnp.abs(found - expected).max() / jnp.abs(expected).max()
    assert 1e-6 < error < 0.05
