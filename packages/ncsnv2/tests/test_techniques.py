"""The techniques give the paper's schedules, and what they say holds for data."""

import goldens
import numpy as np
import pytest
import yaml
from PIL import Image

from ncsnv2.config import check_config, load_config
from ncsnv2.techniques.__main__ import ema_rate, main, round_up
from ncsnv2.techniques.mixture import mean_pairwise_distance, mixture_score, sample_mixture, score_norms
from ncsnv2.techniques.schedule import best_epsilon, overlap, ratio_of_levels, suggest, variance_ratio
from score_core.errors import UsageError
from score_core.repro.tables import load_package

# Table 4 and configs: sigma_1, L, T, epsilon, image side.
PUBLISHED = {
    "cifar10": (50, 232, 5, 6.2e-6, 32),
    "celeba64": (90, 500, 5, 3.3e-6, 64),
    "church96": (140, 788, 4, 4.9e-6, 96),
    "bedroom128": (190, 1086, 3, 1.8e-6, 128),
    "ffhq256": (348, 2311, 3, 9e-7, 256),
}


def tables(row_id):
    return next(row for row in load_package("ncsnv2") if row.id == row_id)


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_levels_and_overlap(name):
    sigma, levels, steps, _, side = PUBLISHED[name]
    schedule = suggest(sigma, 3 * side**2, n_steps=steps)
    assert schedule.num_classes == levels
    assert schedule.overlap == pytest.approx(tables("ncsnv2/technique2/overlap_constant").value, abs=1e-3)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "church96"])
def test_step_size(name):
    """To the digits printed; church's is not the minimum (2.3e-6 is), see the README."""
    sigma, levels, steps, epsilon, _ = PUBLISHED[name]
    gamma = (sigma / 0.01) ** (1 / (levels - 1))
    digits = 0 if name == "ffhq256" else 1
    assert float(f"{best_epsilon(gamma, steps, 0.01):.{digits}e}") == epsilon


def test_variance_ratios_of_the_published_schedules():
    expected = tables("ncsnv2/technique4/variance_ratio").value
    schedules = {**PUBLISHED, "ncsn_cifar10": (1, 10, 100, 2e-5, 32)}
    assert expected.keys() == schedules.keys()
    for name, (sigma, levels, steps, epsilon, _) in schedules.items():
        gamma = (sigma / 0.01) ** (1 / (levels - 1))
        assert variance_ratio(epsilon, gamma, steps, 0.01) == pytest.approx(expected[name], abs=6e-4), name


def test_schedules_of_the_packaged_configurations():
    for name in ("cifar10", "celeba", "church", "bedroom", "ffhq"):
        row = next(key for key in PUBLISHED if key.startswith(name))
        config, (sigma, levels, steps, epsilon, _) = load_config(name), PUBLISHED[row]
        found = (
            config.model.sigma_begin,
            config.model.num_classes,
            config.sampling.n_steps_each,
            config.sampling.step_lr,
        )
        assert found == (sigma, levels, steps, epsilon)


def test_variance_ratio_is_that_of_simulated_chains():
    gamma, sigma_end, sigma, epsilon, steps = 1.2, 0.01, 0.5, 1.5e-5, 4
    rng = np.random.default_rng(0)
    x = gamma * sigma * rng.standard_normal(400_000)
    size = epsilon * (sigma / sigma_end) ** 2
    for _ in range(steps):
        x = x - size * x / sigma**2 + np.sqrt(2 * size) * rng.standard_normal(x.shape)
    assert x.var() / sigma**2 == pytest.approx(variance_ratio(epsilon, gamma, steps, sigma_end), rel=0.01)


def test_overlap_is_the_mass_within_three_deviations_of_the_level_above():
    dimension, gamma = 500, 1.08
    radius = np.sqrt(dimension) + np.random.default_rng(0).standard_normal(1_000_000) / np.sqrt(2)
    above = gamma * np.sqrt(dimension)
    inside = np.abs(radius - above) < 3 * gamma / np.sqrt(2)
    assert inside.mean() == pytest.approx(overlap(gamma, dimension), abs=2e-3)
    assert overlap(ratio_of_levels(dimension, 0.4), dimension) == pytest.approx(0.4, abs=1e-9)


def test_impossible_questions_are_refused():
    with pytest.raises(UsageError):
        ratio_of_levels(3072, 1.0)
    with pytest.raises(UsageError):
        suggest(0.01, 3072)
    assert round_up(8.912) == 9.0 and round_up(45.6) == 46 and round_up(50.0) == 50 and round_up(0.123) == 0.13
    assert ema_rate(300_000) == 0.999 and ema_rate(1500) == 0.9933


def test_mixture_score_is_the_gradient_of_the_log_density():
    rng = np.random.default_rng(0)
    data, x, sigma = rng.random((5, 3)), rng.random((4, 3)), 0.3
    log_density = lambda x: np.log(np.exp(-((x[:, None] - data) ** 2).sum(-1) / (2 * sigma**2)).sum(1))  # noqa: E731
    found = mixture_score(data)(x, sigma)
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = 1e-5
        slope = (log_density(x + step) - log_density(x - step)) / 2e-5
        np.testing.assert_allclose(found[:, axis], slope, rtol=1e-6, atol=1e-8)


def test_a_small_first_level_loses_variety():
    """Two clusters: chains from noise find both only if the first level reaches from one to the other."""
    rng = np.random.default_rng(0)
    near, far = 0.3 * rng.random((50, 20)), 0.7 + 0.3 * rng.random((2, 20))
    data = np.concatenate([near, far + 1.5])  # the second lies outside the square that chains start in
    far_found = {}
    for begin in (12.0, 0.3):
        sigmas = np.geomspace(begin, 0.01, 40 if begin > 1 else 20)
        samples = sample_mixture(data, sigmas, 3e-5, 5, 200, np.random.default_rng(1))
        far_found[begin] = (samples.mean(axis=1) > 1.2).mean()
    assert far_found[0.3] == 0 and 0.005 < far_found[12.0] < 0.15
    assert mean_pairwise_distance(data) > 0


def test_norms_of_scores_go_with_one_over_sigma():
    data = np.random.default_rng(0).random((200, 64))
    sigmas = np.array([2.0, 0.1, 0.01])
    norms = score_norms(data, sigmas, 100, np.random.default_rng(1))
    np.testing.assert_allclose(norms * sigmas, 8, rtol=0.1)  # sqrt(64)


def test_command_on_embedded_data_and_on_own_images(tmp_path, capsys):
    config = tmp_path / "own.yml"
    arguments = [
        "digits",
        "--image_size",
        "8",
        "--exp",
        str(tmp_path),
        "--write_config",
        str(config),
        "--base",
        "digits",
    ]
    assert main([*arguments, "--n_iters", "500"]) == 0
    out = capsys.readouterr().out
    assert "sigma_begin      4.8" in out and "num_classes      22" in out and "2.4e-05" in out
    with Image.open(tmp_path / "techniques" / "digits.png") as picture:
        assert picture.size[0] > 1000
    written = load_config(str(config))
    check_config(written, "train")
    assert written.model.num_classes == 22 and written.fast_fid.step_lr == 2.4e-5 and written.model.ema_rate == 0.98
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(images / f"{k}.png")
    assert main([str(images), "--image_size", "12", "--exp", str(tmp_path), "--max_images", "4", "--mixture"]) == 0
    out = capsys.readouterr().out
    assert "pairs of 4 images drawn from 5" in out and "mean distance of two samples" in out


def test_command_refuses_what_cannot_be(tmp_path, capsys):
    for data in ("CIFAR10", "nonsense", str(tmp_path / "file.txt")):
        (tmp_path / "file.txt").write_text("x")
        assert main([data, "--exp", str(tmp_path / "exp")]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_published_configurations_are_the_originals():
    for path, expected in goldens.load("ncsnv2", "configs.json").items():
        found = yaml.safe_load((goldens.ROOT / "packages" / "ncsnv2" / "src" / "ncsnv2" / path).read_text())
        assert found == expected, path
        assert {k: type(v) for s in expected.values() for k, v in s.items()} == {
            k: type(v) for s in found.values() for k, v in s.items()
        }
