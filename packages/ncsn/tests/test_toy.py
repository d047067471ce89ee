"""The toy distributions, samplers and training against the original's numbers."""

import goldens
import numpy as np
import pytest
import torch
from torch_goldens import close, fill

from ncsn import losses, networks
from ncsn.toy import plots, sampling
from ncsn.toy.distributions import GaussianDist, GMMDist, GMMDistAnneal, Ring, Square
from score_core.noise_scales import langevin_sigmas
from score_core.torch.langevin import replayed_noise

GOLDEN = goldens.load("ncsn", "toy.npz")
CASES = goldens.load("ncsn", "toy.json")


def points(name="points"):
    return torch.tensor(GOLDEN[name])


def seeded(seed, draw):
    torch.manual_seed(seed)
    return draw()


def test_mixture():
    close(GMMDist(2).log_prob(points()), GOLDEN["GMMDist/log_prob"], 1e-5)
    close(GMMDist(4).log_prob(points("GMMDist_dim4/points")), GOLDEN["GMMDist_dim4/log_prob"], 1e-5)
    close(seeded(5, lambda: GMMDist(2).sample((64,))), GOLDEN["GMMDist/sample64_seed5"], 1e-6)


@pytest.mark.parametrize("sigma", ["1", "2.5", "20", "0.3"])
def test_mixture_at_every_level(sigma):
    mixture, name = GMMDistAnneal(2), f"sigma{sigma}"
    close(mixture.log_prob(points(), float(sigma)), GOLDEN[f"GMMDistAnneal/log_prob_{name}"], 1e-5)
    close(mixture.score(points(), float(sigma)), GOLDEN[f"GMMDistAnneal/score_{name}"], 1e-4)
    samples = seeded(6, lambda: mixture.sample((16,), float(sigma)))
    close(samples, GOLDEN[f"GMMDistAnneal/sample16_{name}_seed6"], 1e-6)


def test_score_of_the_mixture_is_the_gradient_of_its_log_density():
    x = points().double().requires_grad_()
    mixture = GMMDistAnneal(2)
    mixture.means, mixture.mix_probs = mixture.means.double(), mixture.mix_probs.double()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, 2.5).sum(), x)
    torch.testing.assert_close(mixture.score(x, 2.5), gradient, rtol=1e-10, atol=1e-12)


def test_square():
    close(Square().log_prob(points()), GOLDEN["Square/log_prob"], 1e-6)
    close(seeded(7, lambda: Square().sample(16)), GOLDEN["Square/sample16_seed7"], 1e-6)


def test_ring():
    ring = Ring(3, 0.2)
    close(ring.log_prob(points("Ring_r3_w0.2/points")), GOLDEN["Ring_r3_w0.2/log_prob"], 1e-5)
    close(seeded(8, lambda: ring.sample((16,))), GOLDEN["Ring_r3_w0.2/sample16_seed8"], 1e-5)


@pytest.mark.parametrize("ill", [0, 1])
def test_gaussian(ill):
    name, gaussian = f"GaussianDist_dim4_ill{ill}", GaussianDist(4, bool(ill))
    close(gaussian.mean, GOLDEN[f"{name}/mean"], 1e-7)
    close(gaussian.log_pdf(points("GMMDist_dim4/points")), GOLDEN[f"{name}/log_pdf"], 1e-5)
    close(seeded(9, lambda: gaussian.sample(8)), GOLDEN[f"{name}/sample8_seed9"], 1e-6)


def test_langevin():
    out = sampling.langevin_dynamics(
        GMMDistAnneal(2).score, points("langevin/x0"), 0.1, 7, noise=replayed_noise(GOLDEN["langevin/noise"])
    )
    close(out, GOLDEN["langevin/out_step7_lr0.1"], 1e-5)


def test_annealed_langevin():
    sigmas = GOLDEN["anneal_langevin/sigmas"]
    np.testing.assert_allclose(langevin_sigmas(20, 1, 10), sigmas, rtol=1e-12)
    out = sampling.anneal_langevin_dynamics(
        GMMDistAnneal(2).score,
        points("langevin/x0"),
        sigmas,
        0.1,
        2,
        noise=replayed_noise(GOLDEN["anneal_langevin/noise"]),
    )
    close(out, GOLDEN["anneal_langevin/out_each2_lr0.1"], 1e-5)


def test_fisher_information_of_an_energy():
    """1/2 |grad(-E) - grad log p|^2 on the golden points."""
    energy = fill(torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Softplus(), torch.nn.Linear(16, 1)))
    from ncsn.losses.functions import score_of_energy

    found = losses.fisher_divergence(score_of_energy(energy), points(), GMMDist(2).score)
    np.testing.assert_allclose(found.item(), GOLDEN["fisher_information/energyMLP_2-16-1"], rtol=1e-4)


def test_five_training_steps():
    model = fill(networks.ToyMLP())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999))
    for step in range(5):
        samples, vectors = (torch.tensor(GOLDEN[f"train5/{name}"][step]) for name in ("samples", "vectors"))
        found = losses.sliced_score_estimation_vr(model, samples, vectors=vectors)
        optimizer.zero_grad()
        found[0].backward()
        optimizer.step()
        np.testing.assert_allclose([v.item() for v in found], GOLDEN["train5/losses"][step], rtol=1e-4)
        expected = CASES["train5"]["parameters_after_step"].get(str(step + 1))
        for name, (total, absolute, first) in (expected or {}).items():
            value = model.get_parameter(name).detach().double()
            np.testing.assert_allclose(value.reshape(-1)[:5], first, rtol=1e-3, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(value.abs().sum(), absolute, rtol=1e-3, err_msg=name)
            np.testing.assert_allclose(value.sum(), total, atol=1e-3 * absolute, err_msg=name)


def test_pictures_show_what_the_original_drew():
    bounds = plots.Bounds()
    image = plots.density_image(GMMDist(2).log_prob, bounds)
    close(image, GOLDEN["ToyRunner.train/call2_arg0"], 1e-4)
    close(image[::4, ::4], GOLDEN["annealed_sampling_exp/call2_arg0"], 1e-4)
    field = plots.score_field(GMMDist(2).score, bounds)
    for i, part in enumerate(field):
        close(part, GOLDEN[f"ToyRunner.train/call28_arg{i}"], 1e-5)


@pytest.mark.slow
def test_figure_3_of_a_seed_is_the_originals(tmp_path):
    """The three clouds of annealed_sampling_exp with seed 1235, from the same random numbers."""
    from ncsn.runners.toy import ToyRunner

    torch.manual_seed(CASES["annealed_sampling_exp"]["seed"])
    clouds = ToyRunner.annealed_sampling_exp(folder=tmp_path)
    for way, call in (("iid", 6), ("langevin", 13), ("annealed", 20)):
        expected = np.stack([GOLDEN[f"annealed_sampling_exp/call{call}_arg{i}"] for i in range(2)], 1)
        np.testing.assert_allclose(clouds[way], expected, rtol=0, atol=2e-3)
    names = ["annealed_langevin_samples.png", "density.png", "iid_samples.png", "langevin_samples.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
