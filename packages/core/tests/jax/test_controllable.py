"""Controllable generation in JAX: the original's numbers and noise chain, what is hidden stays hidden, latent codes."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.controllable import GRAY_MATRIX, ChannelCoupling
from score_core.correctors import CORRECTORS, get_corrector
from score_core.data.scalers import get_data_inverse_scaler, get_data_scaler
from score_core.jax.controllable import (
    get_encoder,
    get_pc_colorizer,
    get_pc_conditional_sampler,
    get_pc_inpainter,
)
from score_core.jax.networks.wideresnet import CIFAR10_MEAN, CIFAR10_STD, get_classifier_grad_fn
from score_core.jax.noise import LegacyMeasurementNoise, PerSampleNoise
from score_core.jax.sampling import get_ode_sampler
from score_core.predictors import PREDICTORS, get_predictor
from score_core.random import RecordedNoise
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.solvers import FEW_STEP_RULES

GOLDEN = goldens.load("core", "controllable.npz")
FACTS = goldens.load("core", "controllable.json")
CASES = [name for name in GOLDEN if name.split("/")[0] in ("inpaint", "colorize", "conditional")]
CLASS_MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4) * 0.1 - 0.5


def make_sde(name, N=8):
    return {"ve": VESDE(0.01, 5.0, N), "vp": VPSDE(0.1, min(4.0, N - 1), N), "subvp": SubVPSDE(0.1, 4.0, N)}[name]


def analytic_model(name):
    def apply_fn(params, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.3) / (1 + 0.1 * label) if name == "ve" else (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


def classifier_gradient(matrix, x, std, labels):
    def logits(x, std):
        return ((x - CIFAR10_MEAN) / CIFAR10_STD).mean((1, 2)) @ matrix / (1 + std[:, None])

    return get_classifier_grad_fn(logits)(x, std, labels)


def golden_noise(kind, n=8):
    if kind == "conditional":
        return RecordedNoise(*(jnp.asarray(GOLDEN[f"cond_noise/{k}"]) for k in ("prior", "corrector", "predictor")))
    known = np.stack([GOLDEN["noise/corr_data"], GOLDEN["noise/pred_data"]], 1).reshape(2 * n, *GOLDEN["data"].shape)
    measurements = np.concatenate([np.full_like(known[:1], np.nan), known])  # the published start draws nothing
    corrector = GOLDEN["noise/corr_inner"][:, None]
    arrays = (GOLDEN["noise/prior"], corrector, GOLDEN["noise/pred_inner"], measurements)
    return RecordedNoise(*map(jnp.asarray, arrays))


@pytest.mark.parametrize("case", CASES)
def test_the_original_s_numbers(case):
    kind, _, settings = case.partition("/")
    name, predictor, corrector, denoise = settings.split("-")
    scaler = get_data_scaler(centered=name != "ve")
    rules = (make_sde(name), analytic_model(name)), (get_predictor(predictor), get_corrector(corrector))
    options = {
        "snr": FACTS["snr"],
        "denoise": denoise == "denoise1",
        "eps": FACTS["eps"][name],
        "inverse_scaler": get_data_inverse_scaler(centered=name != "ve"),
    }
    noise = golden_noise(kind)
    if kind == "inpaint":
        sampler = get_pc_inpainter(*rules[0], *rules[1], **options)
        samples = jax.jit(sampler)({}, noise, scaler(GOLDEN["data"]), GOLDEN["mask"])
    elif kind == "colorize":
        samples = jax.jit(get_pc_colorizer(*rules[0], *rules[1], **options))({}, noise, scaler(GOLDEN["gray"]))
    else:
        sampler = get_pc_conditional_sampler(*rules[0], classifier_gradient, *rules[1], **options)
        samples = jax.jit(sampler)({}, noise, jnp.asarray(CLASS_MATRIX), jnp.asarray(GOLDEN["labels"]))
    expected = GOLDEN[case]
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    assert samples.nfe == FACTS["N"] * 2


def test_the_legacy_chain_draws_the_numbers_of_the_original():
    with jax.threefry_partitionable(False):
        noise = LegacyMeasurementNoise(jax.random.PRNGKey(FACTS["seed"]), GOLDEN["data"].shape)
        carry, prior = noise.prior()
        np.testing.assert_allclose(prior, GOLDEN["noise/prior"], atol=1e-6)
        for i in range(FACTS["N"]):
            carry, z = noise.corrector(noise.begin(carry, i), i, 0)
            np.testing.assert_allclose(z, GOLDEN["noise/corr_inner"][i], atol=1e-6)
            np.testing.assert_allclose(noise.measurement(carry, 0)[1], GOLDEN["noise/corr_data"][i], atol=1e-6)
            carry, z = noise.predictor(carry, i)
            np.testing.assert_allclose(z, GOLDEN["noise/pred_inner"][i], atol=1e-6)
            carry, z = noise.measurement(carry, 0)
            np.testing.assert_allclose(z, GOLDEN["noise/pred_data"][i], atol=1e-6)


MASK = np.zeros((2, 4, 4, 3), bool)
MASK[0, 1:3], MASK[1, ..., 0] = True, True


def recorded(N, n_steps=1, shape=MASK.shape):
    """Noise that costs no compilation of random number generators."""
    draw = np.random.default_rng(5).standard_normal
    sizes = ((), (N, n_steps), (N,), (2 * N + 1,))
    return RecordedNoise(*(jnp.asarray(draw((*size, *shape)), jnp.float32) for size in sizes))


@pytest.mark.parametrize("corrector", CORRECTORS)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_hidden_pixels_cannot_influence_the_result(predictor, corrector):
    """For every pair of rules, both variants and two iterations: not a bit changes; known pixels do change it."""
    rng = np.random.default_rng(1)
    image = rng.random(MASK.shape, np.float32)
    spoilt = np.where(MASK, image, rng.choice([np.nan, np.inf, -3e8, 0.0], MASK.shape)).astype(np.float32)
    other = np.where(MASK, image + 0.5, image).astype(np.float32)
    noise = recorded(3, n_steps=2)

    def apply_fn(params, x, labels):
        """Every pixel sees all others."""
        return analytic_model("vp")(params, x, labels) + 0.1 * x.mean((1, 2, 3), keepdims=True)

    rules = (make_sde("vp", 3), apply_fn, get_predictor(predictor), get_corrector(corrector))
    samplers = [
        get_pc_inpainter(*rules, snr=0.16, n_steps=2, noise_consistent=consistent) for consistent in (False, True)
    ]
    draw = jax.jit(lambda image: [s({}, noise, image, MASK).images for s in samplers])
    for a, b, c in zip(draw(image), draw(spoilt), draw(other), strict=True):
        assert np.isfinite(a).all()
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        assert not np.array_equal(np.where(MASK, 0, a), np.where(MASK, 0, c)) or predictor == corrector == "none"


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in():
    sampler = get_pc_inpainter(
        *(make_sde("vp"), analytic_model("vp"), get_predictor("reverse_diffusion"), get_corrector("langevin")),
        snr=0.16,
        corrector_norm="sample",
        noise_consistent=True,
    )
    images = jnp.asarray(np.random.default_rng(1).random((5, 4, 4, 3), np.float32))
    masks = images[..., :1] > 0.5

    @jax.jit
    def draw(which):
        noise = PerSampleNoise(jax.random.PRNGKey(3), which, (4, 4, 3))
        return sampler({}, noise, images[which], masks[which]).images

    whole, part = draw(jnp.arange(5)), draw(jnp.array([3, 1]))
    np.testing.assert_allclose(part, whole[jnp.array([3, 1])], rtol=0, atol=1e-6)


@pytest.mark.parametrize("matrix", [GRAY_MATRIX, np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0]])
def test_coordinates_of_any_coupling_are_kept(matrix):
    """Of VE, whose mean is the data: coordinates 0 and 2 of the result are those of the image, coordinate 1 is not."""
    coupling = ChannelCoupling(matrix)
    sampler = get_pc_inpainter(
        *(make_sde("ve"), analytic_model("ve"), get_predictor("reverse_diffusion"), get_corrector("langevin")),
        snr=0.16,
        eps=1e-5,
        coupling=coupling,
    )
    image = np.random.default_rng(1).random(MASK.shape, np.float32)
    samples = jax.jit(sampler)({}, recorded(8), image, jnp.array([1, 0, 1]))
    found, given = coupling.decouple(samples.images), image @ coupling.matrix
    np.testing.assert_allclose(found[..., ::2], given[..., ::2], rtol=0, atol=1e-6 * np.abs(samples.images).max())
    assert np.abs(found[..., 1] - given[..., 1]).min() > 1e-4


def test_the_consistent_variant_denoises_what_is_unknown():
    """With the exact score of data at 0.3 the hidden pixels end there; the published mean keeps the last noise."""
    sde = make_sde("ve", 60)
    rules = (lambda params, x, std: -(x - 0.3) / std.reshape(-1, 1, 1, 1) ** 2, get_predictor("reverse_diffusion"))
    noise = recorded(60)
    image = jnp.full(MASK.shape, 0.3)
    errors = []
    for consistent in (False, True):
        sampler = get_pc_inpainter(sde, *rules, get_corrector("none"), snr=0.1, eps=1e-5, noise_consistent=consistent)
        images = jax.jit(sampler)({}, noise, image, MASK).images
        np.testing.assert_allclose(images[MASK], 0.3, rtol=1e-6)
        errors.append(float(jnp.abs(images - 0.3)[~MASK].mean()))
    published, consistent = errors
    last_noise = float(jnp.abs(noise.predictors[-1])[~MASK].mean())
    assert published == pytest.approx(sde.sigma_min * last_noise, rel=1e-3)
    assert consistent < 1e-5


def test_few_step_rules_are_refused():
    rule = next(iter(FEW_STEP_RULES.values()))
    with pytest.raises(ValueError, match="cannot inpaint or colourise"):
        get_pc_inpainter(make_sde("vp"), analytic_model("vp"), rule, get_corrector("none"), snr=0.1)


@pytest.mark.parametrize("solver", ["device", "scipy"])
def test_codes_decode_to_what_was_encoded(solver):
    """For Gaussian data N(0.3, 0.5^2) the code is known, and decoding gives the images back."""
    sde, eps, mu, s = make_sde("vp"), 1e-3, 0.3, 0.5

    def moments(t):
        scale = jnp.exp(sde.log_mean_coefficient(t))
        return scale * mu, jnp.sqrt(scale**2 * s**2 + 1 - scale**2)

    def apply_fn(params, x, labels):
        mean, std = (m.reshape(-1, 1, 1, 1) for m in moments(labels / 999))
        return (x - mean) / std**2 * sde.marginal_prob(x, labels / 999)[1].reshape(-1, 1, 1, 1)

    x = jnp.asarray(np.random.default_rng(2).normal(mu, s, (3, 4, 4, 3)), jnp.float32)
    z, nfe = get_encoder(sde, apply_fn, eps=eps, solver=solver)({}, x)
    (m0, s0), (m1, s1) = moments(jnp.float32(eps)), moments(jnp.float32(1.0))
    np.testing.assert_allclose(z, m1 + s1 / s0 * (x - m0), rtol=0, atol=2e-4)
    back = get_ode_sampler(sde, apply_fn, eps=eps, solver=solver)({}, z)
    np.testing.assert_allclose(back.images, x, rtol=0, atol=2e-4)
    assert 6 < int(nfe) < 200


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="'device' or 'scipy'"):
        get_encoder(make_sde("vp"), analytic_model("vp"), solver="euler")
