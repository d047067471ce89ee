"""The runners' training steps against the original's, with its batches and draws: losses, gradients, updates."""

import goldens
import numpy as np
import pytest
import torch
from ncsn_cases import CASES, RecordedDraws, all_keys, array, images_of, program_of, recorded_steps, update
from torch_goldens import close

from score_core.errors import UsageError
from score_core.torch.score_runner import unwrapped

SHORT = [name for name in CASES if not name.startswith(("errors", "_")) and "long" not in name and "resume" not in name]
# A bias before a GroupNorm with one channel a group: its gradient is rounding, which Adam makes steps of.
ROUNDING = {
    "ScoreNetRunner": [f"{block}.main.{i}.bias" for block in ("convs.1", "deconvs.3", "deconvs.4") for i in (0, 3)]
}


def check_parameters(program, expected, skipped=()):
    network = unwrapped(program.network)
    for key, (total, absolute, first) in expected["parameters"].items():
        if key in skipped:
            continue
        value = network.get_parameter(key).detach().double()
        np.testing.assert_allclose(value.sum(), total, rtol=0, atol=1e-3 * absolute, err_msg=key)
        np.testing.assert_allclose(value.abs().sum(), absolute, rtol=1e-3, err_msg=key)
        np.testing.assert_allclose(value.reshape(-1)[:5], first, rtol=1e-3, atol=1e-3 * abs(max(first, key=abs)))


@pytest.mark.parametrize("name", SHORT)
def test_three_steps(name):
    case, program = CASES[name], program_of(CASES[name])
    losses = [value for tag, value, _ in case["scalars"] if tag == "loss"]
    for step, (batch, draws) in enumerate(recorded_steps(name), 1):
        found = update(program, batch, RecordedDraws(draws))
        np.testing.assert_allclose(found, losses[step - 1], rtol=1e-4)
        gradients = {key: p.grad for key, p in unwrapped(program.network).named_parameters() if p.grad is not None}
        norm = torch.stack([g.double().norm() for g in gradients.values()]).norm().item()
        np.testing.assert_allclose(norm, case["grad_norms"][step - 1], rtol=1e-3)
        if step == 1:
            stored = [key for key in all_keys(name) if "/grad_step1/" in key]
            assert stored
            for key in stored:
                _, _, parameter = key.partition("/grad_step1/")
                if np.abs(array(name, f"grad_step1/{parameter}")).max() > 1e-6 * norm:
                    close(gradients[parameter], array(name, f"grad_step1/{parameter}"))
        check_parameters(program, case["parameters_after_step"][str(step)], ROUNDING.get(case["runner"], ()))
    assert step == 3
    assert program.line(3, found).startswith("step: 3, loss: ")
    assert program.line(3, found).endswith(", sigma: 0.01") == (case["runner"] == "ScoreNetRunner")


@pytest.mark.parametrize("runner", ["AnnealRunner", "BaselineRunner"])
def test_a_hundred_steps_and_the_test_loss(runner):
    name = f"{runner}/long101"
    case, program = CASES[name], program_of(CASES[name])
    losses = {step: value for tag, value, step in case["scalars"] if tag == "loss"}
    kinds = ["rand_like", "randint", "randn_like"] if runner == "AnnealRunner" else ["rand_like", "randn_like"]
    batches = array(name, "batches")
    for number in range(101):  # the hundredth (from 0) is of the test loss
        draws = RecordedDraws([array(name, f"draws_{kind}")[number] for kind in kinds])
        if number == 100:
            program.network.eval()
            with torch.no_grad():
                images = images_of(batches[number])
                found = program.test_loss(program.values(images, draws), draws).item()
            expected = next(value for tag, value, _ in case["scalars"] if tag == program.test_tag)
            np.testing.assert_allclose(found, expected, rtol=1e-3)
        else:
            found = update(program, batches[number], draws)
            if number + 1 in losses:
                np.testing.assert_allclose(found, losses[number + 1], rtol=1e-3)


def test_the_first_steps_of_a_chaotic_run():
    """ScoreNet at 4 pixels amplifies rounding; its first three losses are comparable."""
    name = "ScoreNetRunner/long101"
    case, program = CASES[name], program_of(CASES[name])
    losses = {step: value for tag, value, step in case["scalars"] if tag == "loss"}
    draws = array(name, "draws_randn_like")
    for number in range(3):
        found = update(program, array(name, "batches")[number], RecordedDraws(draws[2 * number : 2 * number + 2]))
        np.testing.assert_allclose(found, losses[number + 1], rtol=1e-3)
    assert {tag for tag, *_ in case["scalars"]} == {"loss", "sigma", program.test_tag}


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith("errors") and "dataset" not in name.split("/unknown_")[-1]]
)
def test_what_stopped_the_original(name):
    """Impossible names are refused before anything starts; the rest works here (unknown data: test_command_line)."""
    case = CASES[name]
    kind = name.split("/")[1]
    if kind in ("unknown_algo", "unknown_optimizer"):
        with pytest.raises(UsageError, match=r"expected dsm or ssm|expected Adam"):
            program_of(case)
        return
    program = program_of(case)
    x = torch.rand(2, case["config"]["data"]["channels"], 16, 16)
    from ncsn.draws import GeneratorDraws

    assert torch.isfinite(program.training_loss(x, GeneratorDraws(torch.Generator().manual_seed(0))))


def test_dequantised_values_and_logits():
    schedules = goldens.load("ncsn", "schedules.npz")
    from score_core.data.value_transforms import ValueTransform, logit

    x, u = (torch.tensor(schedules[f"dequant/{key}"]) for key in ("x", "u"))
    close(ValueTransform(uniform_dequantization=True)(x, u), schedules["dequant/out"], 1e-6)
    close(logit(torch.tensor(schedules["logit_transform/in"])), schedules["logit_transform/out"], 1e-5)


def test_split_of_2019():
    import zlib

    from ncsn.data import shuffled_2019

    schedules = goldens.load("ncsn", "schedules.npz")
    for count in (10, 1000, 60000, 202599):
        order = shuffled_2019(count)
        np.testing.assert_array_equal(order[:20], schedules[f"split2019/{count}/first20"])
        np.testing.assert_array_equal(order[-20:], schedules[f"split2019/{count}/last20"])
        assert zlib.crc32(order.astype(np.int64).tobytes()) == int(schedules[f"split2019/{count}/crc32_int64"])


def test_noise_levels_and_step_sizes():
    from score_core.noise_scales import annealed_step_sizes, langevin_sigmas

    schedules = goldens.load("ncsn", "schedules.npz")
    for key, expected in schedules.items():
        kind, _, rest = key.partition("/")
        if kind not in ("sigmas64", "step_size", "noise_scale", "sigmas32_train"):
            continue
        begin, end, count = rest.split("/")[0].split("_")
        sigmas = langevin_sigmas(float(begin), float(end), int(count))
        if kind == "sigmas64":
            np.testing.assert_allclose(sigmas, expected, rtol=1e-12)
        elif kind == "sigmas32_train":
            np.testing.assert_allclose(sigmas.astype(np.float32), expected, rtol=1e-7)
        else:
            sizes = annealed_step_sizes(sigmas, float(rest.split("/lr")[1]))
            np.testing.assert_allclose(sizes if kind == "step_size" else np.sqrt(2 * sizes), expected, rtol=1e-12)
