"""The samplers with the original's noise: every state, and every number that it prints."""

import goldens
import numpy as np
import pytest
import torch
import torch_goldens
from ncsnv2_cases import golden_network

from ncsnv2.networks import noise_levels
from ncsnv2.watch import StepLines, both
from score_core.data.masks import known_pixels
from score_core.noise_scales import annealed_step_sizes, langevin_sigmas
from score_core.torch.langevin import Known, annealed_langevin, annealed_levels, interpolated, replayed_noise

ARRAYS = goldens.load("ncsnv2", "samplers.npz")
FACTS, *CASES = goldens.load("ncsnv2", "samplers.json")
SCHEDULES = goldens.load("ncsnv2", "schedules.npz")


def score_of(name):
    """(score function, noise levels) of a case."""
    sigmas = ARRAYS[f"{name}/sigmas"]
    if name == "analytic":
        table = torch.from_numpy(sigmas)
        return lambda x, y: (FACTS["mu"] - x) / (table[y].reshape(-1, 1, 1, 1) ** 2 + FACTS["var"]), sigmas
    settings = dict(FACTS[name])
    return golden_network(settings.pop("model"), **settings).eval(), sigmas


class Printed(list):
    def __call__(self, line):
        self.append([float(pair.split(": ")[1]) for pair in line.split(", ")])
        self.fields = [pair.split(": ")[0] for pair in line.split(", ")]


def run(case, start, noise, kind, *, known=None, denoise=False):
    score_fn, sigmas = score_of(case["score"])
    levels = annealed_levels(sigmas, case["args"]["step_lr"])
    states, printed = [], Printed()
    with StepLines(kind, printed) as lines:
        watch = both(lines, lambda step: states.append(step.after.clone()))
        last = annealed_langevin(
            score_fn,
            start,
            levels,
            case["args"]["n_steps_each"],
            noise=noise,
            known=known,
            watch=watch,
            denoise=denoise,
        )
    return states, last, printed


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "ald"], ids=lambda case: case["id"])
def test_annealed_langevin(case):
    start, noise = torch.from_numpy(ARRAYS["x0"]), replayed_noise(ARRAYS[f"{case['id']}/noise"])
    states, last, printed = run(case, start, noise, "annealed", denoise=case["args"]["denoise"])
    images = [last] if case["args"]["final_only"] else states + [last] * case["args"]["denoise"]
    torch_goldens.close(torch.stack(images), ARRAYS[f"{case['id']}/images"], 1e-5)
    assert printed.fields == case["verbose_fields"]
    np.testing.assert_allclose(printed, case["verbose"], rtol=2e-5)
    assert torch.equal(start, torch.from_numpy(ARRAYS["x0"]))


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "interpolation"], ids=lambda case: case["id"])
def test_interpolation(case):
    count = case["args"]["n_interpolations"]
    start = torch.from_numpy(ARRAYS["x0_interp"]).repeat_interleave(count, 0)
    noise = interpolated(replayed_noise(ARRAYS[f"{case['id']}/noise"]), count)
    states, last, printed = run(case, start, noise, "interpolation")
    images = [last] if case["args"]["final_only"] else states
    torch_goldens.close(torch.stack(images), ARRAYS[f"{case['id']}/images"], 1e-5)
    assert printed.fields == case["verbose_fields"]
    np.testing.assert_allclose(printed, case["verbose"], rtol=2e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == "inpainting"], ids=lambda case: case["id"])
def test_inpainting(case):
    references = torch.from_numpy(ARRAYS["inpaint_refer"])
    start = torch.from_numpy(ARRAYS["inpaint_x0"]).flatten(0, 1)
    mask = torch.from_numpy(known_pixels("right", case["image_size"]))
    # recorded for the left half alone
    halves = ARRAYS[f"{case['id']}/noise_ref"]
    known = Known(
        references.repeat_interleave(ARRAYS["inpaint_x0"].shape[1], 0),
        mask,
        noise=replayed_noise(np.concatenate([halves, np.zeros_like(halves)], axis=-1)),
    )
    noise = replayed_noise(ARRAYS[f"{case['id']}/noise_x"])
    states, _, printed = run(case, start, noise, "inpainting", known=known)
    images = [start, *states[:-1]]  # recorded before each update
    torch_goldens.close(torch.stack(images), ARRAYS[f"{case['id']}/separate_copies/images"], 1e-5)
    assert printed.fields == case["printed_fields"]
    np.testing.assert_allclose(printed, case["printed"], rtol=2e-5)


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in SCHEDULES}))
def test_schedules(name):
    golden = torch_goldens.case_of(SCHEDULES, name)
    expected = golden["sigmas"]
    settings, step_lr = schedule_settings(name)
    sigmas = langevin_sigmas(*settings).astype(np.float32)
    np.testing.assert_allclose(sigmas, expected, rtol=1e-7)
    sizes = annealed_step_sizes(expected, step_lr)
    np.testing.assert_allclose(sizes, golden["step_size"], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(2 * sizes), golden["noise_scale"], rtol=1e-12)
    assert float(expected[-1]) ** 2 == pytest.approx(float(golden["denoise_coef"]), rel=1e-12)


def schedule_settings(name):
    """(sigma_begin, sigma_end, levels, distribution), step_lr."""
    if f"configs/{name}.yml" in (configs := goldens.load("ncsnv2", "configs.json")):
        model = configs[f"configs/{name}.yml"]["model"]
        settings = model["sigma_begin"], model["sigma_end"], model["num_classes"], model["sigma_dist"]
        return settings, configs[f"configs/{name}.yml"]["sampling"]["step_lr"]
    first = SCHEDULES[f"{name}/step_size"][-1]
    if name == "geometric_1_class":
        return (float(SCHEDULES[f"{name}/sigmas"][0]), 0.01, 1, "geometric"), first
    _, begin, _, end, count = name.split("_")
    return (float(begin), float(end), int(count), "uniform"), first


def test_levels_of_a_configuration_are_float32():
    from ncsnv2_cases import golden_config

    levels = noise_levels(golden_config(model__sigma_begin=50, model__sigma_end=0.01, model__num_classes=232))
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, SCHEDULES["cifar10/sigmas"])
