"""The predictor-corrector loop in JAX: the original's numbers, its noise chain, per-sample streams, trajectories."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.correctors import get_corrector
from score_core.data.scalers import get_data_inverse_scaler
from score_core.jax.noise import LegacyNoise, PerSampleNoise
from score_core.jax.sampling import Trajectory, get_pc_sampler
from score_core.predictors import get_predictor
from score_core.random import RecordedNoise
from score_core.sdes import VESDE, VPSDE, SubVPSDE

GOLDEN = goldens.load("core", "pc_sampler.npz")
FACTS = goldens.load("core", "pc_sampler.json")
CASES = [name for name, facts in FACTS["cases"].items() if "error" not in facts]


def make_sde(name):
    return {"ve": VESDE(0.01, 5.0, 8), "vp": VPSDE(0.1, 4.0, 8), "subvp": SubVPSDE(0.1, 4.0, 8)}[name]


def analytic_model(name):
    def apply_fn(params, x, labels):
        label = labels.astype(jnp.float32).reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - 0.3) / (1 + 0.1 * label)
        return (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


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
def test_every_pair_matches_the_original(case):
    option, sampler = make_sampler(case)
    n = option["n"]
    noise = RecordedNoise(*(jnp.asarray(GOLDEN[f"noise_n{n}/{k}"]) for k in ("prior", "corrector", "predictor")))
    samples = jax.jit(sampler)({}, noise)
    expected = GOLDEN[f"out/{case}"]
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    assert samples.nfe == FACTS["cases"][case]["nfe"]


@pytest.mark.parametrize("n", [1, 2])
def test_the_legacy_chain_draws_the_numbers_of_the_original(n):
    """The stored noises come from ``PRNGKey(51)`` under the random streams of old JAX."""
    with jax.threefry_partitionable(False):
        noise = LegacyNoise(jax.random.PRNGKey(FACTS["seed"]), tuple(FACTS["shape"]))
        carry, prior = noise.prior()
        np.testing.assert_allclose(prior, GOLDEN[f"noise_n{n}/prior"], atol=1e-6)
        for i in range(FACTS["N"]):
            carry = noise.begin(carry, i)
            for k in range(n):
                carry, z = noise.corrector(carry, i, k)
                np.testing.assert_allclose(z, GOLDEN[f"noise_n{n}/corrector"][i, k], atol=1e-6)
            carry, z = noise.predictor(carry, i)
            np.testing.assert_allclose(z, GOLDEN[f"noise_n{n}/predictor"][i], atol=1e-6)


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in():
    """Without the batch-averaged Langevin norms, sample ``i`` of a seed is one image, whatever surrounds it."""
    _, sampler = make_sampler("vp-reverse_diffusion-none-cont1-pf0-denoise1-n1")
    draw = jax.jit(sampler)
    key = jax.random.PRNGKey(3)
    whole = draw({}, PerSampleNoise(key, jnp.arange(6), (4, 4, 3))).images
    part = draw({}, PerSampleNoise(key, jnp.array([4, 1]), (4, 4, 3))).images
    np.testing.assert_allclose(part, whole[jnp.array([4, 1])], rtol=0, atol=1e-6)


def test_draws_of_different_roles_steps_and_samples_differ():
    noise = PerSampleNoise(jax.random.PRNGKey(0), jnp.arange(3), (2, 2))
    draws = [noise.prior()[1], noise.predictor((), 0)[1], noise.predictor((), 1)[1]]
    draws += [noise.corrector((), i, k)[1] for i in (0, 1) for k in (0, 1)]
    values = np.stack(draws).reshape(len(draws) * 3, -1)[:, 0]
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("n_frames", [1, 3, 8])
def test_a_trajectory_ends_with_the_sample_and_does_not_change_it(n_frames):
    case = "ve-reverse_diffusion-langevin-cont1-pf0-denoise0-n2"
    noise = RecordedNoise(*(jnp.asarray(GOLDEN[f"noise_n2/{k}"]) for k in ("prior", "corrector", "predictor")))
    _, sampler = make_sampler(case, Trajectory(n_frames))
    samples = jax.jit(sampler)({}, noise)
    assert samples.trajectory.shape == (n_frames, *samples.images.shape)
    np.testing.assert_array_equal(samples.trajectory[-1], samples.images)
    np.testing.assert_allclose(samples.images, GOLDEN[f"out/{case}"], rtol=0, atol=3e-4)
