"""Names, shapes and number of parameters of every official configuration, without allocating them."""

import functools
import math

import goldens
import jax
import pytest

from score_core.jax import networks

INDEX = goldens.load("score_sde", "params_index.json")


def shapes_of(model, image_shape):
    shapes = jax.eval_shape(functools.partial(networks.init_params, model, image_shape=image_shape), jax.random.key(0))
    return {key: list(value.shape) for key, value in goldens.flatten(shapes).items()}


@pytest.mark.parametrize("name", [name for name in INDEX if name.startswith("configs/")])
def test_official_config(name, official_config):
    config = official_config(name.removeprefix("configs/"))
    size = config.data.image_size
    assert size == INDEX[name]["image_size"]
    found = shapes_of(networks.create_model(config), (size, size, config.data.num_channels))
    expected = goldens.load("score_sde", INDEX[name]["file"])["params"]
    assert found == {key: shape for key, shape, _ in expected}
    assert sum(math.prod(shape) for shape in found.values()) == INDEX[name]["total"]


def test_published_classifier():
    expected = goldens.load("score_sde", "params_wideresnet_noise_conditional.json")
    found = shapes_of(networks.WideResnet(), (32, 32, 3))
    assert found == {key: shape for key, shape, _ in expected["params"]}
    assert sum(math.prod(shape) for shape in found.values()) == expected["total"] == 38_913_242
