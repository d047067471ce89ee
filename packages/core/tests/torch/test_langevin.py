"""Langevin samplers: right distributions, noise that depends on the sample alone, known parts, memory."""

import math

import numpy as np
import pytest
import torch

from score_core.torch import threefry
from score_core.torch.langevin import (
    Known,
    annealed_langevin,
    annealed_levels,
    interpolated,
    langevin,
    per_sample_noise,
    random_noise,
    replayed_noise,
)

SIGMAS = np.geomspace(4.0, 0.05, 12)
TABLE = torch.from_numpy(SIGMAS)


def gaussian(x, labels, mean=0.5, deviation=0.3):
    """The score of N(mean, deviation^2) with noise of the level."""
    sigma = TABLE[labels].reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return (mean - x) / (sigma**2 + deviation**2)


def start(count):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_annealed_langevin_samples_the_data_distribution():
    noise = random_noise(torch.Generator().manual_seed(0))
    x = annealed_langevin(gaussian, start(3000), annealed_levels(SIGMAS, 2e-3), 20, noise=noise)
    assert x.mean().item() == pytest.approx(0.5, abs=0.01)
    assert x.std().item() == pytest.approx(math.hypot(0.3, 0.05), rel=0.03)


def test_denoising_removes_the_noise_of_the_last_level():
    levels = annealed_levels(SIGMAS, 3e-4)
    ends = {}
    for denoise in (False, True):
        noise = random_noise(torch.Generator().manual_seed(0))
        ends[denoise] = annealed_langevin(gaussian, start(50), levels, 5, noise=noise, denoise=denoise)
    labels = torch.full((50,), len(levels) - 1)
    expected = ends[False] + SIGMAS[-1] ** 2 * gaussian(ends[False], labels)
    assert torch.allclose(ends[True], expected, rtol=1e-12)


def test_plain_langevin_has_the_stationary_variance_of_its_step():
    size, rounds = 0.1, 400
    score = lambda x, labels: -x  # noqa: E731 - standard normal
    x = langevin(score, start(2000), size, rounds, noise=random_noise(torch.Generator().manual_seed(0)))
    # x' = (1 - a) x + sqrt(2 a) z has the variance 2 a / (1 - (1 - a)^2)
    assert x.var().item() == pytest.approx(2 * size / (1 - (1 - size) ** 2), rel=0.03)


def test_step_sizes_and_labels():
    levels = annealed_levels(np.array([1.0, 0.1]), 1e-3)
    assert [level.label for level in levels] == [0, 1]
    np.testing.assert_allclose([level.step_size for level in levels], [0.1, 1e-3])


def test_a_watcher_sees_every_step_and_nothing_is_kept():
    seen = []
    x = start(2)
    before = x.clone()

    def watch(step):
        assert torch.is_inference_mode_enabled()
        seen.append((step.number, step.level.label))

    out = annealed_langevin(gaussian, x, annealed_levels(SIGMAS, 1e-4), 3, noise=random_noise(), watch=watch)
    assert seen == [(3 * level + k, level) for level in range(len(SIGMAS)) for k in range(3)]
    assert torch.equal(x, before)
    (out * torch.ones((), requires_grad=True)).sum().backward()  # a sample may be used in training


def test_scores_that_differentiate():
    def score(x, labels):
        del labels
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(-0.5 * (x**2).sum(), x)[0]

    noise = random_noise(torch.Generator().manual_seed(0))
    x = langevin(score, start(3), 0.1, 5, noise=noise, needs_grad=True)
    again = langevin(lambda x, labels: -x, start(3), 0.1, 5, noise=random_noise(torch.Generator().manual_seed(0)))
    assert torch.equal(x, again)


def test_interpolated_noise_is_standard_and_turns_from_one_draw_to_the_other():
    noise = interpolated(random_noise(torch.Generator().manual_seed(0)), 5)
    z = noise(torch.zeros(5 * 400, 1, 8, 8)).reshape(400, 5, -1)
    assert z.var(dim=(0, 2)).tolist() == pytest.approx([1] * 5, rel=0.03)
    correlation = (z[:, :1] * z).mean(dim=(0, 2))
    assert correlation.tolist() == pytest.approx([math.cos(j * math.pi / 8) for j in range(5)], abs=0.02)


def test_noise_of_a_sample_does_not_depend_on_the_batch():
    key, like = threefry.prng_key(3), torch.zeros(4, 3, 5, 5)
    whole = per_sample_noise(key, torch.arange(4), (3, 5, 5))
    part = per_sample_noise(key, torch.tensor([2]), (3, 5, 5))
    first, second = whole(like), whole(like)
    assert torch.equal(part(like[:1])[0], first[2]) and torch.equal(part(like[:1])[0], second[2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("renew", ["step", "level"])
def test_the_known_part_has_the_noise_of_the_level(renew):
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, :2] = True
    image = torch.full((300, 1, 4, 4), 0.25, dtype=torch.float64)
    deviations, held = {}, {}

    def watch(step):
        part = step.before[..., mask]
        deviations.setdefault(step.level.label, (part - 0.25).std().item())
        held.setdefault(step.level.label, []).append(part.clone())

    noise = random_noise(torch.Generator().manual_seed(0))
    known = Known(image, mask, renew)
    x = annealed_langevin(gaussian, start(300), annealed_levels(SIGMAS, 1e-4), 2, noise=noise, known=known, watch=watch)
    assert list(deviations.values()) == pytest.approx(SIGMAS.tolist(), rel=0.1)
    same = [torch.equal(*parts) for parts in held.values()]
    assert all(same) if renew == "level" else not any(same)
    if renew == "level":  # put back after the update, too
        assert (x[..., mask] - 0.25).std().item() == pytest.approx(SIGMAS[-1], rel=0.1)


def test_recorded_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape"):
        replayed_noise([np.zeros((2, 3))])(torch.zeros(3, 2))
