"""Controllable generation in PyTorch: both originals' numbers, the JAX wing's images, what is hidden stays hidden."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from score_core.controllable import GRAY_MATRIX, ChannelCoupling
from score_core.correctors import CORRECTORS, get_corrector
from score_core.data.scalers import get_data_inverse_scaler, get_data_scaler
from score_core.jax import controllable as jax_controllable
from score_core.jax.networks.wideresnet import get_classifier_grad_fn as jax_classifier_grad_fn
from score_core.jax.noise import PerSampleNoise as JaxPerSampleNoise
from score_core.predictors import PREDICTORS, get_predictor
from score_core.random import RecordedNoise
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.solvers import FEW_STEP_RULES
from score_core.torch.controllable import get_encoder, get_pc_colorizer, get_pc_conditional_sampler, get_pc_inpainter
from score_core.torch.networks.wideresnet import CIFAR10_MEAN, CIFAR10_STD, get_classifier_grad_fn
from score_core.torch.noise import LegacyNoise, PerSampleNoise
from score_core.torch.sampling import get_ode_sampler
from score_core.torch.threefry import prng_key

TORCH, TORCH_FACTS = goldens.load("core", "torch/controllable.npz"), goldens.load("core", "torch/controllable.json")
TORCH_CASES = [case for case in TORCH_FACTS["cases"] if not case.startswith("net/")]
JAX, JAX_FACTS = goldens.load("core", "controllable.npz"), goldens.load("core", "controllable.json")
JAX_CASES = [case for case in JAX if case.split("/")[0] in ("inpaint", "colorize", "conditional")]
CLASS_MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4) * 0.1 - 0.5


def make_sde(name, N=8, sigma_max=5.0, beta_max=4.0):
    return {
        "ve": lambda: VESDE(0.01, sigma_max, N),
        "vp": lambda: VPSDE(0.1, min(beta_max, N - 1), N),
        "subvp": lambda: SubVPSDE(0.1, beta_max, N),
    }[name]()


def analytic_model(name):
    """The stand-in network of the JAX program's golden files, for arrays of either library."""

    def apply_fn(params, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.3) / (1 + 0.1 * label) if name == "ve" else (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


def toy_model(name):
    """The stand-in network of the PyTorch program's golden files."""

    def apply_fn(params, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.4) / (label**2 + 0.09) if name == "ve" else 0.7 * x * (1 + 0.0005 * label) + 0.05

    return apply_fn


def classifier_gradient(matrix, x, std, labels):
    def logits(x, std):
        mean, deviation = (x.new_tensor(values)[:, None, None] for values in (CIFAR10_MEAN, CIFAR10_STD))
        return ((x - mean) / deviation).mean((2, 3)) @ matrix / (1 + std[:, None])

    return get_classifier_grad_fn(logits)(x, std, labels)


def first(array):
    """Channels first, as PyTorch's arrays."""
    return torch.tensor(np.moveaxis(np.asarray(array), -1, -3).copy())


class Replay:
    """The PyTorch program's draws one after the other, whoever asks."""

    def __init__(self, draws):
        self.draws = iter(torch.tensor(draws))

    def prior(self):
        return (), next(self.draws)

    def begin(self, carry, i):
        return carry

    def corrector(self, carry, i, k):
        return carry, next(self.draws)

    def predictor(self, carry, i):
        return carry, next(self.draws)

    def measurement(self, carry, j):
        return carry, next(self.draws)


@pytest.mark.parametrize("kind", ["inpaint", "colorize"])
@pytest.mark.parametrize("case", TORCH_CASES)
def test_the_numbers_of_the_pytorch_program(case, kind):
    """Inpainting draws from the program's seed; colourisation, whose draws lie otherwise in memory, replays them."""
    name, predictor, corrector, denoise, flow = case.split("/")
    sizes = TORCH_FACTS["sde_parameters"]
    sde = make_sde(name, TORCH_FACTS["N"], sizes["smax"], sizes["bmax"])
    arguments = (sde, toy_model(name), *(get(rule.lower()) for get, rule in
                 ((get_predictor, predictor), (get_corrector, corrector))))  # fmt: skip
    options = {
        "snr": 0.16,
        "probability_flow": flow == "pf1",
        "denoise": denoise == "denoise1",
        "eps": sde.sampling_eps,
        "inverse_scaler": get_data_inverse_scaler(centered=name != "ve"),
    }
    if kind == "inpaint":
        stream = torch.Generator().manual_seed(TORCH_FACTS["seed"])
        noise = LegacyNoise(stream, tuple(TORCH_FACTS["shape"]))
        image, mask = torch.tensor(TORCH[f"{name}/image"]), torch.tensor(TORCH["mask"])
        samples = get_pc_inpainter(*arguments, **options)({}, noise, image, mask)
        drawn = TORCH_FACTS["cases"][case]["draws_inpaint"]
        if drawn < len(TORCH["noise_bank"]):  # as many were drawn as in the program: the next one is next
            np.testing.assert_array_equal(noise.predictor((), 0)[1], TORCH["noise_bank"][drawn])
    else:
        noise = Replay(TORCH[f"{name}/{predictor}/{corrector}/{flow}/colorize_noise"])
        samples = get_pc_colorizer(*arguments, **options)({}, noise, torch.tensor(TORCH[f"{name}/gray"]))
        assert next(noise.draws, None) is None
    expected = TORCH[f"{case}/{kind}"]
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=5e-6 * np.abs(expected).max())
    assert not samples.images.is_inference()


def recorded_by_the_jax_program(kind, n=8):
    if kind == "conditional":
        return RecordedNoise(*(first(JAX[f"cond_noise/{k}"]) for k in ("prior", "corrector", "predictor")))
    known = np.stack([JAX["noise/corr_data"], JAX["noise/pred_data"]], 1).reshape(2 * n, *JAX["data"].shape)
    measurements = np.concatenate([np.full_like(known[:1], np.nan), known])  # the published start draws nothing
    arrays = (JAX["noise/prior"], JAX["noise/corr_inner"][:, None], JAX["noise/pred_inner"], measurements)
    return RecordedNoise(*map(first, arrays))


@pytest.mark.parametrize("case", JAX_CASES)
def test_the_numbers_of_the_jax_program(case):
    kind, _, settings = case.partition("/")
    name, predictor, corrector, denoise = settings.split("-")
    scaler = get_data_scaler(centered=name != "ve")
    arguments = (make_sde(name), analytic_model(name)), (get_predictor(predictor), get_corrector(corrector))
    options = {
        "snr": JAX_FACTS["snr"],
        "denoise": denoise == "denoise1",
        "eps": JAX_FACTS["eps"][name],
        "inverse_scaler": get_data_inverse_scaler(centered=name != "ve"),
    }
    noise = recorded_by_the_jax_program(kind)
    if kind == "inpaint":
        sampler = get_pc_inpainter(*arguments[0], *arguments[1], **options)
        samples = sampler({}, noise, scaler(first(JAX["data"])), first(JAX["mask"]))
    elif kind == "colorize":
        samples = get_pc_colorizer(*arguments[0], *arguments[1], **options)({}, noise, scaler(first(JAX["gray"])))
    else:
        sampler = get_pc_conditional_sampler(*arguments[0], classifier_gradient, *arguments[1], **options)
        samples = sampler({}, noise, torch.tensor(CLASS_MATRIX), torch.tensor(JAX["labels"]))
    expected = first(JAX[case]).numpy()
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    assert samples.nfe == JAX_FACTS["N"] * 2


MASK = np.zeros((2, 4, 4, 3), bool)
MASK[0, 1:3], MASK[1, ..., 0] = True, True


@pytest.mark.parametrize("corrector", CORRECTORS)
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_hidden_pixels_cannot_influence_the_result(predictor, corrector):
    """For every pair of rules, both variants and two iterations: not a bit changes; known pixels do change it."""
    rng = np.random.default_rng(1)
    image = rng.random(MASK.shape, np.float32)
    spoilt = np.where(MASK, image, rng.choice([np.nan, np.inf, -3e38, 0.0], MASK.shape)).astype(np.float32)
    other = np.where(MASK, image + 0.5, image).astype(np.float32)

    def apply_fn(params, x, labels):
        """Every pixel sees all others."""
        return analytic_model("vp")(params, x, labels) + 0.1 * x.mean((1, 2, 3), keepdim=True)

    rules = (make_sde("vp", 3), apply_fn, get_predictor(predictor), get_corrector(corrector))
    for consistent in (False, True):
        sampler = get_pc_inpainter(*rules, snr=0.16, n_steps=2, noise_consistent=consistent)
        a, b, c = (
            sampler({}, PerSampleNoise(prng_key(5), torch.arange(2), (3, 4, 4)), first(x), first(MASK)).images.numpy()
            for x in (image, spoilt, other)
        )
        assert np.isfinite(a).all()
        assert a.tobytes() == b.tobytes()
        hidden = ~first(MASK).numpy()
        assert not np.array_equal(a[hidden], c[hidden]) or predictor == corrector == "none"


@pytest.mark.parametrize("kind", ["inpaint", "colorize", "conditional"])
@pytest.mark.parametrize(("name", "consistent"), [("ve", False), ("vp", True)])
def test_both_wings_draw_the_same_images_from_one_seed(kind, name, consistent):
    rules = (make_sde(name), analytic_model(name)), (get_predictor("reverse_diffusion"), get_corrector("langevin"))
    rng = np.random.default_rng(2)
    indices, labels = np.array([7, 2, 40]), np.array([0, 3, 1])
    image, mask = rng.random((3, 4, 5, 3), np.float32), rng.random((4, 5, 1)) > 0.5
    gray = np.repeat(image[..., :1], 3, axis=-1)
    ours = PerSampleNoise(prng_key(11), torch.tensor(indices), (3, 4, 5))
    theirs = JaxPerSampleNoise(jax.random.PRNGKey(11), jnp.asarray(indices), (4, 5, 3))
    options = {"snr": 0.16, "n_steps": 2, "corrector_norm": "sample"}
    if kind != "conditional":
        options["noise_consistent"] = consistent
    if kind == "inpaint":
        a = get_pc_inpainter(*rules[0], *rules[1], **options)({}, ours, first(image), first(mask))
        b = jax_controllable.get_pc_inpainter(*rules[0], *rules[1], **options)({}, theirs, image, mask)
    elif kind == "colorize":
        a = get_pc_colorizer(*rules[0], *rules[1], **options)({}, ours, first(gray))
        b = jax_controllable.get_pc_colorizer(*rules[0], *rules[1], **options)({}, theirs, gray)
    else:

        def jax_gradient(matrix, x, std, labels):
            def logits(x, std):
                mean, deviation = (np.asarray(values, np.float32) for values in (CIFAR10_MEAN, CIFAR10_STD))
                return ((x - mean) / deviation).mean((1, 2)) @ matrix / (1 + std[:, None])

            return jax_classifier_grad_fn(logits)(x, std, labels)

        sampler = get_pc_conditional_sampler(*rules[0], classifier_gradient, *rules[1], **options)
        a = sampler({}, ours, torch.tensor(CLASS_MATRIX), torch.tensor(labels))
        sampler = jax_controllable.get_pc_conditional_sampler(*rules[0], jax_gradient, *rules[1], **options)
        b = sampler({}, theirs, jnp.asarray(CLASS_MATRIX), jnp.asarray(labels))
    np.testing.assert_allclose(a.images, first(b.images), rtol=0, atol=3e-5 * np.abs(b.images).max())
    assert a.nfe == b.nfe


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in():
    sampler = get_pc_inpainter(
        *(make_sde("vp"), analytic_model("vp"), get_predictor("reverse_diffusion"), get_corrector("langevin")),
        snr=0.16,
        corrector_norm="sample",
        noise_consistent=True,
    )
    images = torch.tensor(np.random.default_rng(1).random((5, 3, 4, 4), np.float32))
    masks = images[:, :1] > 0.5

    def draw(which):
        return sampler({}, PerSampleNoise(prng_key(3), which, (3, 4, 4)), images[which], masks[which]).images

    whole, part = draw(torch.arange(5)), draw(torch.tensor([3, 1]))
    np.testing.assert_allclose(part, whole[[3, 1]], rtol=0, atol=1e-6)


@pytest.mark.parametrize("matrix", [GRAY_MATRIX, np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0]])
def test_coordinates_of_any_coupling_are_kept(matrix):
    """Of VE, whose mean is the data: coordinates 0 and 2 of the result are those of the image, coordinate 1 is not."""
    coupling = ChannelCoupling(matrix, axis=1)
    sampler = get_pc_inpainter(
        *(make_sde("ve"), analytic_model("ve"), get_predictor("reverse_diffusion"), get_corrector("langevin")),
        snr=0.16,
        eps=1e-5,
        coupling=coupling,
    )
    image = torch.tensor(np.random.default_rng(1).random((2, 3, 4, 4), np.float32))
    noise = PerSampleNoise(prng_key(5), torch.arange(2), (3, 4, 4))
    samples = sampler({}, noise, image, torch.tensor([1, 0, 1])[:, None, None])
    found, given = coupling.decouple(samples.images), coupling.decouple(image)
    np.testing.assert_allclose(found[:, ::2], given[:, ::2], rtol=0, atol=1e-6 * samples.images.abs().max())
    assert (found[:, 1] - given[:, 1]).abs().min() > 1e-4


def test_few_step_rules_are_refused():
    rule = next(iter(FEW_STEP_RULES.values()))
    with pytest.raises(ValueError, match="cannot inpaint or colourise"):
        get_pc_inpainter(make_sde("vp"), analytic_model("vp"), rule, get_corrector("none"), snr=0.1)


def test_a_few_step_rule_follows_the_classifier():
    """DDIM with the gradient of log N(label; mean x, 1) ends nearer to the label than without."""

    def toward(strength, x, std, labels):
        gap = labels[:, None, None, None] - x.mean((1, 2, 3), keepdim=True)
        return strength * gap.expand_as(x)

    rules = (get_predictor("ddim"), get_corrector("none"))
    sampler = get_pc_conditional_sampler(make_sde("vp"), analytic_model("vp"), toward, *rules, snr=0.1, steps=5)
    noise = PerSampleNoise(prng_key(5), torch.arange(2), (3, 4, 4))
    free, led = (sampler({}, noise, strength, torch.tensor([5, 5])).images.mean() for strength in (0.0, 1.0))
    assert free < led < 5


@pytest.mark.parametrize("solver", ["device", "scipy"])
def test_codes_decode_to_what_was_encoded(solver):
    """For Gaussian data N(0.3, 0.5^2) the code is known, and decoding gives the images back."""
    sde, eps, mu, s = make_sde("vp"), 1e-3, 0.3, 0.5

    def moments(t):
        scale = torch.exp(sde.log_mean_coefficient(t))
        return scale * mu, torch.sqrt(scale**2 * s**2 + 1 - scale**2)

    def apply_fn(params, x, labels):
        mean, std = (m.reshape(-1, 1, 1, 1) for m in moments(labels / 999))
        return (x - mean) / std**2 * sde.marginal_prob(x, labels / 999)[1].reshape(-1, 1, 1, 1)

    x = torch.tensor(np.random.default_rng(2).normal(mu, s, (3, 3, 4, 4)), dtype=torch.float32)
    z, nfe = get_encoder(sde, apply_fn, eps=eps, solver=solver)({}, x)
    (m0, s0), (m1, s1) = moments(torch.tensor(eps)), moments(torch.tensor(1.0))
    np.testing.assert_allclose(z, m1 + s1 / s0 * (x - m0), rtol=0, atol=2e-4)
    assert z.dtype == torch.float32
    back = get_ode_sampler(sde, apply_fn, eps=eps, solver=solver)({}, z)
    np.testing.assert_allclose(back.images, x, rtol=0, atol=2e-4)
    assert 6 < int(nfe) < 200


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="'device' or 'scipy'"):
        get_encoder(make_sde("vp"), analytic_model("vp"), solver="euler")
