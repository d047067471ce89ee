"""The networks of every kind of configuration against the original's outputs."""

import goldens
import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.jax.networks import init_params
from score_core.jax.networks.layers import GaussianFourierProjection
from score_core.parameterization import get_score_fn
from score_flow_hdsm.networks import create_model

GOLDEN = hdsm_cases.load("networks.npz")
FACTS = hdsm_cases.load("networks.json")


@pytest.mark.parametrize("case", FACTS)
def test_output_and_score_match_the_original(case):
    config = hdsm_cases.config_of(FACTS[case])
    apply, params = hdsm_cases.network_of(config)
    names = {name: tuple(shape) for name, shape, _ in FACTS[case]["params"]}
    assert {name: leaf.shape for name, leaf in goldens.flatten(params).items()} == names
    x, t = jnp.asarray(GOLDEN[f"{case}/x"]), jnp.asarray(GOLDEN[f"{case}/t"])
    seen = {}

    def model_fn(x, labels):
        seen["labels"], seen["out"] = labels, apply(params, x, labels)
        return seen["out"]

    score = get_score_fn(hdsm_cases.sde_of(config), model_fn, True)(x, t)
    np.testing.assert_allclose(seen["labels"], GOLDEN[f"{case}/labels"], rtol=1e-5)
    for actual, key in ((seen["out"], "model_out"), (score, "score")):
        expected = GOLDEN[f"{case}/{key}"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("trainable", [False, True])
def test_trainable_frequencies_get_a_gradient_and_frozen_ones_none(trainable):
    config = hdsm_cases.config_of(FACTS["lve_fourier"])
    config.model.trainable_embedding = trainable
    assert create_model(config).trainable_embedding == trainable
    module = GaussianFourierProjection(4, 16.0, trainable)
    labels = jnp.asarray(GOLDEN["lve_fourier/labels"])
    variables = module.init(jax.random.PRNGKey(0), labels)
    grads = jax.grad(lambda v: jnp.sum(module.apply(v, labels)))(variables)
    assert (float(jnp.abs(grads["params"]["W"]).max()) > 0) == trainable


@pytest.mark.parametrize(
    ("base", "section", "values", "message"),
    [
        ("ve/cifar10_ncsnpp_continuous", "model", {"embedding_type": "positional"}, "for vesde use 'fourier'"),
        ("vp/cifar10_ddpmpp_continuous", "model", {"scale_by_sigma": True}, "labels are for vesde, not vpsde"),
        ("ve/cifar10_ncsnpp_continuous", "training", {"sde": "linearvesde"}, "labels are for vesde, not linearvesde"),
    ],
)
def test_embeddings_that_an_sde_does_not_have_are_refused(base, section, values, message):
    config = hdsm_cases.published(base, "mle_score_ode", {section: values})
    with pytest.raises(ValueError, match=message):
        hdsm_cases.network_of(config)


@pytest.mark.parametrize(
    "name",
    [
        "ddpmpp_continuous",
        "ddpmpp_deep_continuous",
        "ncsnpp_continuous",
        "ncsnpp_deep_continuous",
        "church_ncsnpp_continuous",
    ],
)
def test_full_size_networks_have_the_published_parameters(name):
    facts = hdsm_cases.load(f"params_ncsnpp_{name}.json")
    program, _, file = facts["configs"][0].partition("/configs/")
    config = hdsm_cases.published(file.removesuffix(".py"), program)
    data = config.data
    shape = (data.image_size, data.image_size, data.num_channels)
    shapes = jax.eval_shape(lambda: init_params(create_model(config), jax.random.PRNGKey(0), shape))
    flat = goldens.flatten(shapes)
    assert {n: (list(leaf.shape), str(leaf.dtype)) for n, leaf in flat.items()} == {
        n: (s, d) for n, s, d in facts["params"]
    }
    assert sum(int(np.prod(leaf.shape)) for leaf in flat.values()) == facts["total"]
