"""The Flow++ dequantiser against the original's: values, log-densities, parameters, initialisation from data."""

import goldens
import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hdsm_cases import gentle

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.convert import FORMATS, Report, detect_format, load_formats
from score_flow_hdsm import checkpoint_formats
from score_flow_hdsm import logistic_mixture as mixture
from score_flow_hdsm.dequantizer import VARIANTS, Dequantizer, MixLogisticAttnCoupling, create_dequantizer

GOLDEN = hdsm_cases.load("dequantizer.npz")
FACTS = hdsm_cases.load("dequantizer.json")


def tiny(variant):
    kw = FACTS[variant]["kw"]
    return Dequantizer(
        VARIANTS[variant]._replace(
            filters=kw["filters"], components=kw["components"], blocks=kw["blocks"], heads=kw["attn_heads"]
        )
    )


def filled(variant, rule):
    return goldens.unflatten(
        {name: jnp.asarray(rule(name, tuple(shape))) for name, shape, _ in FACTS[variant]["params"]}
    )


@pytest.mark.parametrize("variant", FACTS)
def test_noise_and_log_density_match_the_original(variant):
    module, u, x = tiny(variant), GOLDEN[f"{variant}/u"], GOLDEN[f"{variant}/x"]
    apply = jax.jit(module.apply)
    noise, logd = apply(filled(variant, gentle), u, x)
    # Eight couplings of imagenet32 carry a rounding error on: both programs are 5e-5 away from a float64 evaluation.
    atol = 1e-5 if variant == "cifar10" else 1.5e-4
    np.testing.assert_allclose(noise, GOLDEN[f"{variant}/noise"], rtol=1e-4, atol=atol)
    np.testing.assert_allclose(logd, GOLDEN[f"{variant}/logd"], atol=1e-2)
    noise, logd = apply(filled(variant, goldens.fill), u, x)
    np.testing.assert_allclose(noise, GOLDEN[f"{variant}/rulefill_noise"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(logd, GOLDEN[f"{variant}/rulefill_logd"], rtol=1e-4, atol=1e-2)


def test_the_inverse_returns_the_noise_and_its_log_density():
    module, params = tiny("cifar10"), filled("cifar10", gentle)
    u, x, noise = (jnp.asarray(GOLDEN[f"cifar10/{name}"]) for name in ("u", "x", "noise"))
    inverse, logd = jax.jit(lambda n: module.apply(params, n, x, inverse=True))(noise)
    np.testing.assert_allclose(inverse, GOLDEN["cifar10/inverse"], atol=2e-3)
    np.testing.assert_allclose(inverse, u, atol=2e-3)
    # ours is a density in this direction as well: what the forward map said of the same noise
    np.testing.assert_allclose(logd, GOLDEN["cifar10/logd"], atol=0.1)


def test_the_log_density_is_that_of_the_map():
    """-log q by the Jacobian of u -> noise, which the flow never forms."""
    module = Dequantizer(VARIANTS["cifar10"]._replace(filters=4, components=2, blocks=1, heads=1))
    x = jnp.asarray(np.random.default_rng(0).random((1, 2, 4, 1), np.float32))
    u = jax.random.normal(jax.random.PRNGKey(0), x.shape)
    shapes = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), u, x))
    params = goldens.unflatten({n: jnp.asarray(gentle(n, s.shape)) for n, s in goldens.flatten(shapes).items()})
    noise, logd = jax.jit(module.apply)(params, u, x)
    jacobian = jax.jit(jax.jacfwd(lambda u: module.apply(params, u.reshape(x.shape), x)[0].ravel()))(u.ravel())
    log_q = -0.5 * jnp.sum(u**2) - 0.5 * u.size * jnp.log(2 * jnp.pi) - jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(logd[0], -log_q, rtol=1e-4)
    assert float(noise.min()) > 0 and float(noise.max()) < 1


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_where_the_mixture_saturates_values_and_gradients_are_finite(size):
    """Far in the tails h is 0 or 1 in float32, where 1 / h and its gradient are not finite."""
    x = size * jnp.asarray([[[[-1.0]], [[1.0]], [[-0.6]], [[0.3]]]])
    arguments = [jnp.full((*x.shape, 2), value) for value in (0.0, 0.1, -0.5)]
    assert float(jnp.exp(mixture.log_cdf(x, *arguments)).min()) == 0.0

    def total(x, s, arguments):
        logit, log_det = MixLogisticAttnCoupling._map(x, s, arguments)
        return jnp.sum(logit) + jnp.sum(log_det)

    s = jnp.zeros_like(x)
    value, grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(x, s, arguments)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    # in the lower tail the logit goes on as the logarithm of h, so the gradient is the inverse of the scale
    logit = jax.grad(lambda x: jnp.sum(MixLogisticAttnCoupling._map(x, s, arguments)[0]))(x)
    np.testing.assert_allclose(logit[0, 0], np.exp(0.5), rtol=1e-5)


def test_a_flow_of_saturated_couplings_has_finite_gradients_and_an_inverse():
    """As when the first batch's positions hardly vary, so that norms multiply by large gains."""
    module = Dequantizer(VARIANTS["cifar10"]._replace(filters=4, components=2, blocks=1, heads=1))
    x = jnp.asarray(np.random.default_rng(0).random((2, 2, 4, 1), np.float32))
    u = jax.random.normal(jax.random.PRNGKey(0), x.shape)
    shapes = jax.eval_shape(lambda: module.init(jax.random.PRNGKey(0), u, x))
    flat = {n: jnp.asarray(gentle(n, s.shape)) for n, s in goldens.flatten(shapes).items()}
    flat = {n: 300.0 * v if "/norm" in n and n.endswith("_g") else v for n, v in flat.items()}
    params = goldens.unflatten(flat)
    (value, noise), grads = jax.jit(
        jax.value_and_grad(lambda p: (lambda n, logd: (jnp.sum(logd), n))(*module.apply(p, u, x)), has_aux=True)
    )(params)
    assert np.isfinite(value) and np.isfinite(noise).all()
    assert float(noise.min()) == 0.0 or float(noise.max()) == 1.0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    inverse, logd = jax.jit(lambda n: module.apply(params, n, x, inverse=True))(noise)
    assert np.isfinite(inverse).all() and np.isfinite(logd).all()


@pytest.mark.parametrize("variant", ["cifar10", "imagenet32"])
def test_full_size_dequantizers_have_the_published_parameters(variant):
    facts = hdsm_cases.load(f"params_dequantizer_{variant}.json")
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    module = create_dequantizer("CIFAR10" if variant == "cifar10" else "ImageNet", 32)
    shapes = jax.eval_shape(module.init, jax.random.PRNGKey(0), images, images)
    flat = {name: list(leaf.shape) for name, leaf in goldens.flatten(shapes).items()}
    assert flat == {name: shape for name, shape, _ in facts["params"]}


@pytest.mark.parametrize("variant", FACTS)
def test_the_first_batch_standardises_the_flow(variant):
    """The original's rule: gains, and the sizes of weights up to its other random numbers."""
    module, u, x = tiny(variant), GOLDEN[f"{variant}/u"], GOLDEN[f"{variant}/x"]
    if variant == "imagenet32":  # a part of it, whose layers see what they see in the whole
        module = Dequantizer(module.variant._replace(groups=1, context_blocks=1))
    init = jax.jit(module.init)
    variables = init(jax.random.PRNGKey(FACTS[variant]["data_dependent_init"]["params_key"]), u, x)
    flat = goldens.flatten(variables)
    checks = FACTS[variant]["data_dependent_init"]["checks"]
    # What comes before any random weight is a function of the data alone.
    norm = checks["params/Norm_0/norm0_g"]
    np.testing.assert_allclose(np.sum(np.abs(flat["params/Norm_0/norm0_g"])), norm["abs"], rtol=1e-4)
    np.testing.assert_allclose(np.ravel(flat["params/Norm_0/norm0_g"])[:3], norm["first"], rtol=1e-3)
    for name, facts in checks.items():
        if name in flat and name.endswith(("_W", "_V")):
            np.testing.assert_allclose(np.mean(np.abs(flat[name])), facts["abs"] / flat[name].size, rtol=0.5)
    noise, logd = jax.jit(module.apply)(variables, u, x)
    if variant == "cifar10":
        np.testing.assert_allclose(np.mean(logd), np.mean(GOLDEN[f"{variant}/logd_at_init"]), rtol=0.1)
    assert np.isfinite(noise).all()


def test_the_variant_for_64_pixels_can_be_initialised():
    module = Dequantizer(VARIANTS["imagenet64"]._replace(filters=4, components=2, blocks=1, context_blocks=1))
    x = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3), np.float32))
    variables = jax.jit(module.init)(jax.random.PRNGKey(0), x, x)
    assert np.isfinite(jax.jit(module.apply)(variables, x, x)[1]).all()


def test_the_logistic_mixture_matches_the_original():
    x, *parameters = (jnp.asarray(GOLDEN[f"logistic/{name}"]) for name in ("x", "logits", "means", "logscales"))
    np.testing.assert_allclose(mixture.log_pdf(x, *parameters), GOLDEN["logistic/logpdf"], rtol=1e-5)
    np.testing.assert_allclose(mixture.log_cdf(x, *parameters), GOLDEN["logistic/logcdf"], rtol=1e-5)
    y = jnp.asarray(GOLDEN["logistic/y"])
    quantiles = mixture.inverse_cdf(y, *parameters)
    np.testing.assert_allclose(quantiles, GOLDEN["logistic/invcdf"], rtol=1e-3)
    np.testing.assert_allclose(jnp.exp(mixture.log_cdf(quantiles, *parameters)), y, rtol=1e-5)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="must be even: 7"):
        create_dequantizer("cifar10", 7)


def test_the_converter_tells_a_dequantisers_checkpoint_from_a_score_models():
    load_formats()
    if "flowpp" not in FORMATS:  # installed before there was one
        checkpoint_formats.register()
    tree = {"step": np.int32(5), "params_ema": {"params": {"w": np.ones(2, np.float32)}}}
    assert detect_format(msgpack_format.dumps(tree)) == "flax"
    tree["ema_train_bpd"] = np.float32(3)
    data = msgpack_format.dumps(tree)
    assert detect_format(data) == "flowpp"
    read = FORMATS["flowpp"].read(data, None, Report(), "here")
    assert FORMATS["flowpp"].write(read, None, Report()) == data
