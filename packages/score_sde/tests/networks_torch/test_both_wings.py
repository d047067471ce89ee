"""The same parameters in the Flax and in the PyTorch networks give the same numbers, in either program's flavor."""

from typing import Any

import goldens
import jax
import numpy as np
import pytest
import torch

from score_core.correctors import get_corrector
from score_core.jax import networks as jax_networks
from score_core.jax import noise as jax_noises
from score_core.jax import sampling as jax_sampling
from score_core.jax.networks.refine import resize
from score_core.predictors import get_predictor
from score_core.sdes import get_sde
from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.noise import PerSampleNoise
from score_core.torch.sampling import get_pc_sampler
from score_core.torch.threefry import prng_key
from score_core.torch.training import get_apply_fn

CASES = goldens.load("score_sde", "networks.json")
VERIFIED = goldens.load("score_sde", "jax_to_torch_verification.json")
SHARED = [*VERIFIED, "ncsnv2_64", "ncsn_v1"]
REFINE_NETS = [case for case, facts in CASES.items() if facts["config"].startswith(("ve/ncsn/", "ve/ncsnv2/"))]
PC_RUNS: dict[str, tuple[str, str, float]] = {
    "ncsnpp_ve_continuous": ("reverse_diffusion", "langevin", 0.16),
    "ddpmpp_vp_continuous": ("euler_maruyama", "none", 0.0),
    "ddpm_vp": ("ancestral_sampling", "none", 0.0),
    "ncsnv2_64": ("none", "ald", 0.176),
}
"""Predictor, corrector and step size of one run a family."""


@pytest.fixture(scope="module", autouse=True)
def keep_compiled_operations():
    """Hundreds of small operations are compiled here: keep them on disk, however quick each one was."""
    option = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, option)
    jax.config.update(option, 0.0)
    yield
    jax.config.update(option, before)


def test_all_verified_variants_are_among_the_cases():
    assert set(VERIFIED) <= set(CASES)
    assert sum("relative" in facts for facts in VERIFIED.values()) == 23


def in_both_wings(config, flavor):
    """The networks of both wings with the same filled parameters: ``torch_model, jax_model, jax_params``."""
    model = networks.create_model(config, flavor=flavor).eval()
    with torch.no_grad():
        for leaf in flax_leaves(model).values():
            # Unlike in the golden files: by path and with the shape here.
            leaf.parameter.copy_(torch.tensor(goldens.fill(f"both/{leaf.path}", tuple(leaf.parameter.shape))))
    return model, jax_networks.create_model(config, flavor), networks.to_flax_tree(model)


def assert_equal_outputs(case, config, flavor):
    model, theirs, params = in_both_wings(config, flavor)
    size, channels = config.data.image_size, config.data.num_channels
    random = np.random.default_rng(0)
    x = random.random((2, size, size, channels), np.float32)
    labels = {
        "sigma": np.asarray([0.3, 4.0], np.float32),
        "float": np.asarray([12.5, 700.0], np.float32),
        "int": np.asarray([1, 7], np.int32),
    }[case["label_kind"]]
    with torch.inference_mode():
        found = model(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(labels)).permute(0, 2, 3, 1)
    expected: Any = theirs.apply({"params": params}, x, labels, train=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return np.asarray(expected)


@pytest.mark.parametrize("name", SHARED)
def test_equal_outputs(name, official_config):
    """The 23 variants compared when the goldens were made, those the PyTorch program could not run, and RefineNets."""
    case = CASES[name]
    assert_equal_outputs(case, official_config(case["config"], case["overrides"]), "jax")


@pytest.mark.parametrize("name", [*REFINE_NETS, "ncsnv2_64_instancenorm"])
def test_the_pytorch_flavor_in_jax(name, official_config):
    """Every RefineNet with the PyTorch program's numbers; they are not those of the JAX flavor."""
    case = CASES[name.removesuffix("_instancenorm")]
    norm = {"model.normalization": "InstanceNorm"} if name.endswith("_instancenorm") else {}
    config = official_config(case["config"], {**case["overrides"], **norm})
    found = assert_equal_outputs(case, config, "pytorch")
    other = assert_equal_outputs(case, config, "jax")
    assert np.abs(found - other).max() > 1e-3 * np.abs(other).max()


def test_the_flavor_of_a_configuration(official_config):
    """``model.flavor`` decides unless the caller does; empty or missing it is this wing's own."""
    for given, expected in ((None, "jax"), ("", "jax"), ("jax", "jax"), ("pytorch", "pytorch")):
        config = official_config("ve/ncsnv2/cifar10")
        if given is not None:
            with config.unlocked():
                config.model.flavor = given
        model: Any = jax_networks.create_model(config)
        assert (model.flavor, model.scale_by_sigma) == (expected, True)
        assert jax_networks.create_model(config, "pytorch").flavor == "pytorch"  # pyright: ignore[reportAttributeAccessIssue]
    config = official_config("ve/ncsnv2/cifar10", {"model.flavor": "tensorflow"})
    with pytest.raises(ValueError, match=r"unknown flavor 'tensorflow' \(model\.flavor\); known: jax, pytorch"):
        jax_networks.create_model(config)
    config = official_config("ve/ncsn/cifar10", {"model.scale_by_sigma": True})
    scaled = [jax_networks.create_model(config, flavor).scale_by_sigma for flavor in ("jax", "pytorch")]  # pyright: ignore[reportAttributeAccessIssue]
    assert scaled == [True, False]


@pytest.mark.parametrize(("height", "width", "out"), [(4, 4, (8, 8)), (3, 5, (7, 10)), (1, 4, (6, 1)), (5, 5, (5, 5))])
def test_bilinear_with_aligned_corners_is_two_matrix_products(height, width, out):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    found = resize(jax.numpy.asarray(x), (2, *out, 3), "bilinear", "pytorch")
    expected = torch.nn.functional.interpolate(
        torch.tensor(x).permute(0, 3, 1, 2), out, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PC_RUNS)
def test_a_predictor_corrector_run_with_the_same_noise(name, official_config):
    """25 steps of each family's own sampler, every random number the same: images within 1e-3 of their range."""
    case, (predictor, corrector, snr) = CASES[name], PC_RUNS[name]
    config = official_config(case["config"], {**case["overrides"], "model.num_scales": 25})
    flavor = "pytorch" if name == "ncsnv2_64" else "jax"
    model, theirs, params = in_both_wings(config, flavor)
    sde = get_sde(config.training.sde, N=25, **config.model)
    rules = (get_predictor(predictor), get_corrector(corrector))
    options = {"snr": snr, "continuous": config.training.continuous, "eps": sde.sampling_eps}
    size, channels = config.data.image_size, config.data.num_channels
    noise = PerSampleNoise(prng_key(3), torch.arange(2), (channels, size, size))
    found = get_pc_sampler(sde, get_apply_fn(model), *rules, **options)(None, noise).images

    def apply_fn(params, x, labels):
        return theirs.apply({"params": params}, x, labels, train=False)

    jax_noise = jax_noises.PerSampleNoise(jax.random.PRNGKey(3), jax.numpy.arange(2), (size, size, channels))
    sampler = jax.jit(jax_sampling.get_pc_sampler(sde, apply_fn, *rules, **options))
    expected = sampler(params, jax_noise).images
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, rtol=0, atol=1e-3 * np.abs(expected).max())
