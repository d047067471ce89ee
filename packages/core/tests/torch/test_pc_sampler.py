"""The predictor-corrector loop in PyTorch: both originals' numbers, the JAX wing's images, streams, trajectories."""

import functools
import warnings

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from score_core.correctors import get_corrector
from score_core.data.scalers import get_data_inverse_scaler
from score_core.jax import noise as jax_noise
from score_core.jax import sampling as jax_sampling
from score_core.parameterization import get_score_fn
from score_core.predictors import get_predictor
from score_core.random import RecordedNoise
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.torch.noise import LegacyNoise, PerSampleNoise
from score_core.torch.sampling import Trajectory, get_pc_sampler
from score_core.torch.threefry import prng_key

GOLDEN, FACTS = goldens.load("core", "pc_sampler.npz"), goldens.load("core", "pc_sampler.json")
CASES = [name for name, facts in FACTS["cases"].items() if "error" not in facts]
TORCH, TORCH_FACTS = goldens.load("core", "torch/samplers_pc.npz"), goldens.load("core", "torch/samplers_pc.json")
STEP = goldens.load("core", "torch/samplers_single_step.npz")
# repaired: Euler-Maruyama for the ODE and Langevin correctors for sub-VP, which raise errors in the original.
TORCH_CASES = [name for name, facts in TORCH_FACTS["cases"].items() if facts["ok"] and facts["finite"]]


def make_sde(name, N=8, sigma_max=5.0, beta_max=4.0):
    return {
        "ve": lambda: VESDE(0.01, sigma_max, N),
        "vp": lambda: VPSDE(0.1, beta_max, N),
        "subvp": lambda: SubVPSDE(0.1, beta_max, N),
    }[name]()


def analytic_model(name):
    """The stand-in network of the JAX program's golden files, for arrays of either library."""

    def apply_fn(params, x, labels):
        label = (1.0 * labels).reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - 0.3) / (1 + 0.1 * label)
        return (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


def toy_model(sde, continuous):
    """The stand-in network of the PyTorch program's golden files."""

    def apply_fn(params, x, labels):
        if not isinstance(sde, VESDE):
            return 0.7 * x * (1 + 0.0005 * labels.reshape(-1, 1, 1, 1)) + 0.05
        sigma = labels if continuous else torch.tensor(sde.discrete_sigmas[::-1].copy())[labels.long()]
        return -(x - 0.4) / (sigma.reshape(-1, 1, 1, 1) ** 2 + 0.09)

    return apply_fn


def first(array):
    """Channels first, as PyTorch's arrays."""
    return torch.tensor(np.moveaxis(np.asarray(array), -1, -3).copy())


def recorded(n):
    return RecordedNoise(*(first(GOLDEN[f"noise_n{n}/{k}"]) for k in ("prior", "corrector", "predictor")))


def make_sampler(case, trajectory=None):
    sde, predictor, corrector, *options = case.split("-")
    option = {o.rstrip("0123456789"): int(o[len(o.rstrip("0123456789")) :]) for o in options}
    return option, get_pc_sampler(
        make_sde(sde),
        analytic_model(sde),
        get_predictor(predictor),
        get_corrector(corrector),
        snr=FACTS["snr"],
        n_steps=option["n"],
        probability_flow=bool(option["pf"]),
        continuous=bool(option["cont"]),
        denoise=bool(option["denoise"]),
        eps=1e-5 if sde == "ve" else 1e-3,
        inverse_scaler=get_data_inverse_scaler(centered=sde != "ve"),
        trajectory=trajectory,
    )


@pytest.mark.parametrize("case", CASES)
def test_every_pair_matches_the_jax_program(case):
    option, sampler = make_sampler(case)
    samples = sampler({}, recorded(option["n"]))
    expected = first(GOLDEN[f"out/{case}"])
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-4 * expected.abs().max())
    assert samples.nfe == FACTS["cases"][case]["nfe"]


@pytest.mark.parametrize("case", TORCH_CASES)
def test_every_pair_matches_the_pytorch_program_drawing_from_its_stream(case):
    """Numbers come from the seed in the order of the program, so the order of draws is checked as well."""
    name, predictor, corrector, continuous, probability_flow, n_steps = case.split("/")
    sde = make_sde(name, N=TORCH_FACTS["N"], sigma_max=50, beta_max=20.0)
    facts = TORCH_FACTS["cases"][case]
    for kind in ("x_mean", "x"):
        calls = []
        model = toy_model(sde, continuous[-1] == "1")

        def counted(params, x, labels, model=model, calls=calls):
            calls.append(len(x))
            return model(params, x, labels)

        sampler = get_pc_sampler(
            sde,
            counted,
            get_predictor(predictor),
            get_corrector(corrector),
            snr=TORCH_FACTS["snr"],
            n_steps=int(n_steps[-1]),
            probability_flow=probability_flow[-1] == "1",
            continuous=continuous[-1] == "1",
            denoise=kind == "x_mean",
            eps=sde.sampling_eps,
            inverse_scaler=get_data_inverse_scaler(centered=name != "ve"),
        )
        stream = torch.Generator().manual_seed(TORCH_FACTS["seed"])
        noise = LegacyNoise(stream, tuple(TORCH_FACTS["shape"]))
        samples = sampler({}, noise)
        expected = TORCH[f"{case}/{kind}"]
        np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-6 * np.abs(expected).max())
        assert (samples.nfe, len(calls)) == (facts["nfe_reported"], facts["model_calls"])
        if facts["draws"] < len(TORCH["noise_bank"]):  # as many were drawn as in the program: the next one is next
            np.testing.assert_array_equal(noise.predictor((), 0)[1], TORCH["noise_bank"][facts["draws"]])


@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_single_updates_match_the_pytorch_program(name):
    sde = make_sde(name, N=1000, sigma_max=50.0, beta_max=20.0)
    if isinstance(sde, VESDE):
        # That program's table: last bits differ from ours, which sigma_i^2 - sigma_{i-1}^2 magnifies.
        sde.discrete_sigmas = torch.exp(torch.linspace(np.log(0.01), np.log(50.0), 1000)).numpy()
        sde._previous_sigmas = np.append(np.float32(0), sde.discrete_sigmas[:-1])
    x, t = torch.tensor(STEP["x"]) * (5 if name == "ve" else 1), torch.tensor(STEP["t"])
    z = [torch.tensor(STEP[f"z{k}"]) for k in range(2)]

    score_fn = get_score_fn(sde, lambda x, labels: toy_model(sde, True)({}, x, labels), True)
    seen = 0
    for key in (key for key in STEP if key.startswith(f"{name}/") and key.endswith("/x")):
        rule = key.split("/")[1]
        if rule in ("langevin", "ald"):
            corrector, found = get_corrector(rule)(sde, score_fn, 0.16), (x, x)
            for noise in z:
                found = corrector.step(found[0], t, noise)
        else:
            found = get_predictor(rule)(sde, score_fn).update(x, t, z[0])
        for value, kind in zip(found, ("x", "x_mean"), strict=True):
            expected = STEP[f"{name}/{rule}/{kind}"]
            np.testing.assert_allclose(value, expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=key)
        seen += 1
    assert seen >= 2


@pytest.mark.parametrize(
    ("name", "predictor", "corrector", "options"),
    [
        ("ve", "reverse_diffusion", "langevin", {"n_steps": 2}),
        ("subvp", "euler_maruyama", "ald", {"corrector_norm": "sample", "denoise": False}),
        ("vp", "ddim", "none", {"steps": 4, "eta": 0.5, "denoise": False}),
        ("ve", "dpm_solver_pp_2m", "langevin", {"steps": 5}),
    ],
)
def test_both_wings_draw_the_same_images_from_one_seed(name, predictor, corrector, options):
    arguments = (make_sde(name), analytic_model(name), get_predictor(predictor), get_corrector(corrector))
    options = {"snr": 0.16, "eps": 1e-3, **options}
    indices = np.arange(3) + 40
    ours = get_pc_sampler(*arguments, trajectory=Trajectory(2), **options)(
        {}, PerSampleNoise(prng_key(11), torch.tensor(indices), (3, 4, 5))
    )
    theirs = jax.jit(jax_sampling.get_pc_sampler(*arguments, trajectory=jax_sampling.Trajectory(2), **options))(
        {}, jax_noise.PerSampleNoise(jax.random.PRNGKey(11), jnp.asarray(indices), (4, 5, 3))
    )
    scale = np.abs(theirs.images).max()
    np.testing.assert_allclose(ours.images, first(theirs.images), rtol=0, atol=2e-5 * scale)
    np.testing.assert_allclose(ours.trajectory, first(theirs.trajectory), rtol=0, atol=2e-5 * scale)
    assert ours.nfe == theirs.nfe


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in():
    """Without the batch-averaged Langevin norms, sample ``i`` of a seed is one image, whatever surrounds it."""
    _, sampler = make_sampler("vp-reverse_diffusion-none-cont1-pf0-denoise1-n1")
    whole = sampler({}, PerSampleNoise(prng_key(3), torch.arange(6), (3, 4, 4))).images
    part = sampler({}, PerSampleNoise(prng_key(3), torch.tensor([4, 1]), (3, 4, 4))).images
    np.testing.assert_array_equal(part, whole[[4, 1]])
    assert not whole.is_inference()


@pytest.mark.parametrize("n_frames", [1, 3, 8])
def test_a_trajectory_ends_with_the_sample_and_does_not_change_it(n_frames):
    case = "ve-reverse_diffusion-langevin-cont1-pf0-denoise0-n2"
    samples = make_sampler(case, Trajectory(n_frames))[1]({}, recorded(2))
    assert samples.trajectory.shape == (n_frames, *samples.images.shape)
    np.testing.assert_array_equal(samples.trajectory[-1], samples.images)
    np.testing.assert_allclose(samples.images, first(GOLDEN[f"out/{case}"]), rtol=0, atol=3e-4)


@pytest.mark.parametrize("predictor", ["reverse_diffusion", "dpm_solver_pp_2m"])
def test_compiled_rules_are_whole_graphs_and_change_nothing(predictor, monkeypatch):
    """The "eager" back end shows that all of a rule is captured, without waiting for a C++ compiler."""
    torch.compiler.reset()
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
    rules = (get_predictor(predictor), get_corrector("langevin"))
    build = functools.partial(get_pc_sampler, make_sde("vp", N=4), analytic_model("vp"), *rules, snr=0.1)
    noise = PerSampleNoise(prng_key(0), torch.arange(2), (3, 2, 2))
    expected = build()({}, noise).images
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    np.testing.assert_allclose(build(compiled=True)({}, noise).images, expected, rtol=1e-6, atol=1e-6)


def test_options_that_do_not_fit_the_predictor_are_refused():
    arguments = (make_sde("vp"), analytic_model("vp"))
    none, ddim, euler = get_corrector("none"), get_predictor("ddim"), get_predictor("euler_maruyama")
    for predictor, options, message in [
        (euler, {"steps": 5}, "belong to few-step rules"),
        (ddim, {"continuous": False}, "continuous time"),
        (ddim, {"steps": -1}, "must be positive"),
        (ddim, {"eta": 0.5, "probability_flow": True}, "which has no noise"),
        (get_predictor("heun"), {"eta": 0.5}, "adds no noise"),
    ]:
        with pytest.raises(ValueError, match=message):
            get_pc_sampler(*arguments, predictor, none, snr=0.1, **options)
