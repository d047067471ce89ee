"""Every sampler against the original's states, with its noise; inpainting with any mask."""

import functools

import goldens
import numpy as np
import pytest
import torch
from torch_goldens import close, fill

from ncsn import networks, sampling
from score_core.torch.langevin import annealed_levels, replayed_noise

CASES = goldens.load("ncsn", "samplers.json")


@functools.cache
def arrays():
    return goldens.load("ncsn", "samplers.npz")


def analytic(sigmas):
    levels = torch.tensor(sigmas)

    def score(x, labels):
        variance = 0.04 + levels[labels] ** 2
        return (-(x - 0.5) / variance.float().reshape(-1, 1, 1, 1)).to(x.dtype)

    return score


@functools.cache
def network(kind):
    if kind == "baseline":
        return fill(networks.RefineNetDilated(1, 4)).eval()
    return fill(networks.CondRefineNetDilated(1, 4, 10)).eval()


class States:
    """Records what the original returned: the states before the updates, clipped."""

    def __init__(self):
        self.images = []

    def __call__(self, step):
        self.images.append(sampling.to_pixels(step.before, logit=False).clone())

    def check(self, expected, indices=None):
        found = torch.stack(self.images)
        close(found if indices is None else found[indices], expected)


@pytest.mark.parametrize("name", ["anneal/analytic_each3", "anneal/analytic_each2_lr8e-6", "anneal/net_each2"])
def test_annealed_langevin(name):
    case, golden = CASES[name], arrays()
    score = network("anneal") if "net" in name else analytic(golden["sigmas"])
    states = States()
    noise = replayed_noise(golden[f"{name}/noise_randn_like"])
    sampling.anneal_langevin_dynamics(
        score,
        torch.tensor(golden["x0"]),
        golden["sigmas"],
        case["n_steps_each"],
        case["step_lr"],
        noise=noise,
        watch=states,
    )
    states.check(golden[f"{name}/images"])


def test_annealed_langevin_of_a_seed():
    case, golden = CASES["anneal/full_seed1234"], arrays()
    torch.manual_seed(case["seed"])
    x, states = torch.rand(2, 1, 8, 8), States()
    sampling.anneal_langevin_dynamics(analytic(golden["sigmas"]), x, golden["sigmas"], watch=states)
    states.check(golden["anneal/full_seed1234/images"], [0, 1, 99, 100, 500, 900, 998, 999])


@pytest.mark.parametrize(
    "name", ["langevin9/net_n6", "langevin9/analytic_default", "baseline/net_n6", "baseline/analytic_n5"]
)
def test_langevin(name):
    case, golden = CASES[name], arrays()
    x, states, lines = torch.tensor(golden["x0"]), States(), []
    options = {} if "default" in name else {"n_steps": case["n_steps"], "step_lr": float(case["step_lr"])}
    if name.startswith("baseline"):
        score = network("baseline") if "net" in name else lambda x, _: -(x - 0.5) / (0.04 + 0.0001)
    else:
        score = network("anneal") if "net" in name else analytic(golden["sigmas"])
    x = x[:1] if "default" in name else x
    printed = sampling.ModulusLines(lines.append)

    def watch(step):
        states(step)
        printed(step)

    with printed:
        noise = replayed_noise(golden[f"{name}/noise_randn_like"])
        sampling.langevin_dynamics(score, x, noise=noise, watch=watch, **options)
    states.check(golden[f"{name}/images"], [0, 1, 50, 199] if "default" in name else None)
    assert len(lines) == case["printed_lines"]
    words = lines[0].replace(",", "").split()
    assert words[:5] == ["modulus", "of", "grad", "components:", "mean"]
    np.testing.assert_allclose([float(words[5]), float(words[7])], case["printed_first_mean_max"], rtol=1e-4)


@pytest.mark.parametrize("name", ["inpaint/analytic", "inpaint/net"])
def test_inpainting(name):
    case, golden = CASES[name], arrays()
    sigmas = golden["inpaint/sigmas"]
    start, refer = torch.tensor(golden["inpaint/x0"]), torch.tensor(golden["inpaint/refer"])
    if name.endswith("net"):
        score = fill(networks.CondRefineNetDilated(3, 2, 3)).eval()
        refer = refer[:1].expand(2, -1, -1, -1)
    else:
        score = analytic(sigmas)
    refer = refer.repeat_interleave(2, 0)
    x = start.reshape(-1, 3, 32, 32)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[:, :16] = True
    # Per level: the noise of the known half, then that of one step.
    flat, half, whole = golden[f"{name}/noise_randn_like"], 4 * 3 * 32 * 16, 4 * 3 * 32 * 32
    known, free = [], []
    for level in range(2):
        begin = level * (half + whole)
        padded = np.zeros((4, 3, 32, 32), np.float32)
        padded[..., :16] = flat[begin : begin + half].reshape(4, 3, 32, 16)
        known.append(padded)
        free.append(flat[begin + half : begin + half + whole].reshape(4, 3, 32, 32))
    before, states = x.clone(), States()
    levels = annealed_levels(sigmas, float(case["step_lr"]))
    out = sampling.anneal_langevin_inpainting(
        score, x, refer, mask, levels, 1, noise=replayed_noise(free), known_noise=replayed_noise(known), watch=states
    )
    # parity: the first recorded state is the one before its known half is put in place; ours has it already.
    expected = golden[f"{name}/images"]
    found = torch.stack(states.images)
    found = found[:, :1] if name.endswith("net") else found
    close(found, expected)
    assert torch.equal(x, before), "the caller's start was changed"
    assert torch.isfinite(out).all()


def test_hidden_pixels_cannot_influence_the_result():
    """References that differ only where they are hidden give the same completions."""
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 1:7] = True  # any shape
    sigmas = np.asarray([1.0, 0.1])
    torch.manual_seed(0)
    refer, x = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    found = []
    for other in (refer, torch.where(mask, refer, 7.0)):
        torch.manual_seed(1)
        levels = annealed_levels(sigmas, 1e-3)
        found.append(sampling.anneal_langevin_inpainting(analytic(sigmas), x, other, mask, levels, 5))
    assert torch.equal(*found)


def test_noise_of_the_known_part_is_drawn_as_the_originals():
    """As many numbers as there are known pixels, in their order: the original's randn of the left half."""
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:, :3] = True
    torch.manual_seed(0)
    found = sampling.masked_noise(mask)(torch.empty(4, 2, 6, 6))
    torch.manual_seed(0)
    assert torch.equal(found[..., :3], torch.randn(4, 2, 6, 3))
    assert not found[..., 3:].any()


def test_logits_are_not_clipped_before_their_sigmoid():
    """The original clipped them to [0, 1], which leaves greys of 0.5 to 0.73."""
    state = torch.tensor([-30.0, -2.0, 0.0, 2.0, 30.0])
    torch.testing.assert_close(sampling.to_pixels(state, logit=True), state.sigmoid())
