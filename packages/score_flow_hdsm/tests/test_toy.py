"""Data, schedules, network, losses and ODE of the toy study against the original's numbers."""

import goldens
import hdsm_cases
import numpy as np
import pytest
import torch

from score_core.likelihood import probability_flow_drift
from score_flow_hdsm.toy import mixture, network, ode
from score_flow_hdsm.toy.data import DATA, Streams
from score_flow_hdsm.toy.losses import METHODS, toy_loss
from score_flow_hdsm.toy.network import ScoreNetwork
from score_flow_hdsm.toy.sdes import draw_times, toy_sde

FUNCTIONS = hdsm_cases.load("toy_functions.npz")
NETWORKS, NETWORK_FACTS = hdsm_cases.load("toy_networks.npz"), hdsm_cases.load("toy_networks.json")
LOSSES, LOSS_FACTS = hdsm_cases.load("toy_losses.npz"), hdsm_cases.load("toy_losses.json")


def fill(net, factor=1.0):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.from_numpy(factor * goldens.fill(name, tuple(parameter.shape))))
    return net


def sizes(kw):
    names = {"enc": "encoder_layers", "pos": "pos_dim", "dec": "decoder_layers"}
    return {names[key]: value for key, value in kw.items()}


@pytest.mark.parametrize("case", ["mog_1", "mog_2", "point_1", "checkerboard_2", "swissroll_2"])
def test_data_match_the_original(case):
    name, dim = case.split("_")
    n = 10 if name == "swissroll" else 50
    drawn = DATA[name].draw(n, int(dim), Streams.seeded(1))
    assert drawn.is_contiguous() and drawn.dtype == torch.float32
    np.testing.assert_allclose(drawn, FUNCTIONS[f"data/{case}"], atol=1e-6)


@pytest.mark.parametrize("name", ["VE", "VP"])
def test_schedules_and_exact_mixture_match_the_original(name):
    sde, t = toy_sde(name), torch.from_numpy(FUNCTIONS["t"])
    x = torch.from_numpy(FUNCTIONS["x"])
    mean, std = sde.marginal_prob(torch.ones(len(t), 1), t)
    np.testing.assert_allclose(std, FUNCTIONS[f"{name}/marginal_std"], rtol=1e-5)
    # mean^2 = 1 - std^2 in float32: one unit of the last place of 1 is 7e-4 of the smallest mean
    np.testing.assert_allclose(mean, FUNCTIONS[f"{name}/mean_of_1"], rtol=1e-3)
    np.testing.assert_allclose(sde.sde(x, t)[1] ** 2, FUNCTIONS[f"{name}/g2"], rtol=1e-5)
    z = torch.from_numpy(FUNCTIONS["z"])
    np.testing.assert_allclose(sde.prior_logp(z), FUNCTIONS[f"{name}/prior_logp"][:, 0], rtol=1e-5)
    np.testing.assert_allclose(-z / sde.prior_scale**2, FUNCTIONS[f"{name}/prior_score"], rtol=1e-5)
    # Where all components underflow the original has NaN and we have numbers.
    known = np.isfinite(FUNCTIONS[f"{name}/forward_log_q"])
    exact = [mixture.log_density(sde, x, t), *mixture.derivatives(sde, x, t, 3)]
    kinds = ("forward_log_q", "forward_score", "forward_second_score", "forward_third_score")
    # The third derivative is a difference of terms of the size of the second one to the power 3/2, in float32.
    slack = (1e-6, 1e-5, 1e-3, 1e-6 * 465**1.5)
    for value, kind, atol in zip(exact, kinds, slack, strict=True):
        assert torch.isfinite(value).all()
        np.testing.assert_allclose(value[known], FUNCTIONS[f"{name}/{kind}"][known], rtol=1e-4, atol=atol, err_msg=kind)
    drift = probability_flow_drift(sde, lambda x, t: mixture.derivatives(sde, x, t)[0])(x, t)
    np.testing.assert_allclose(drift[known], FUNCTIONS[f"{name}/ode_func"][known], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("name", ["VE", "VP"])
def test_exact_density_and_score_of_the_ode_match_the_original(name):
    sde, y = toy_sde(name), torch.from_numpy(FUNCTIONS["yy"])

    def score(x, t):
        if not x.requires_grad:
            return mixture.derivatives(sde, x, t)[0]
        return torch.autograd.grad(mixture.log_density(sde, x, t).sum(), x, create_graph=True)[0]

    density = ode.log_density(sde, score, y, 1e-3)
    np.testing.assert_allclose(density, FUNCTIONS[f"{name}/ode_likelihood_exact"][:, 0], atol=1e-2)
    known = ode.ode_score(sde, score, y, 0.4, original_divergence=True)
    expected = FUNCTIONS[f"{name}/ode_score_exact"]
    np.testing.assert_allclose(known, expected, atol=2e-3 * np.abs(expected).max())
    # Driven by the exact score, the ODE has the data's density and score.
    t = torch.full((len(y),), 1e-3)
    np.testing.assert_allclose(density, mixture.log_density(sde, y, t), atol=1e-2)
    truth = mixture.derivatives(sde, y, t)[0].numpy()
    np.testing.assert_allclose(ode.ode_score(sde, score, y, 1e-3), truth, atol=1e-2 * np.abs(truth).max())


def test_times_and_embeddings_match_the_original():
    times = draw_times(toy_sde("VP"), 40, np.random.RandomState(2), reweighted=False)
    np.testing.assert_allclose(times, FUNCTIONS["iw_t"], rtol=1e-5)
    cumulative = toy_sde("VP").cumulative_weight(FUNCTIONS["t"].astype(np.float64), 1e-5)
    np.testing.assert_allclose(cumulative, FUNCTIONS["cumw"], rtol=1e-5, atol=1e-6)
    for size in (64, 7):
        embedded = network.time_embedding(torch.from_numpy(FUNCTIONS["t"]), size)
        np.testing.assert_allclose(embedded, FUNCTIONS[f"temb{size}"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", NETWORK_FACTS)
def test_network_and_derivatives_match_the_original(case):
    dim = int(case[-1])
    net = fill(ScoreNetwork(dim, **sizes(NETWORK_FACTS[case]["kw"])))
    assert [[n, list(p.shape), "float32"] for n, p in net.named_parameters()] == NETWORK_FACTS[case]["params"]
    x = torch.from_numpy(NETWORKS[f"{case}/x"]).requires_grad_()
    out = net(x, torch.from_numpy(NETWORKS[f"{case}/t"]))
    found = {"out": out}
    if dim > 2:
        found["div"] = network.probed_divergence(out, x, torch.from_numpy(NETWORKS[f"{case}/v"]))
    else:
        found["jac"], found["div"] = network.jacobian(out, x), network.divergence(out, x)
        found["grad_div"] = network.gradient_of_divergence(found["div"], x)
    for name, value in found.items():
        expected = NETWORKS[f"{case}/{name}"]
        np.testing.assert_allclose(value.detach(), expected, atol=1e-4 * np.abs(expected).max(), err_msg=name)


def test_seeded_initialisation_matches_the_original():
    facts = hdsm_cases.load("toy_init_seed.json")
    generator = torch.Generator().manual_seed(facts["seed"])
    net = ScoreNetwork.seeded(generator, 2)
    hdsm_cases.compare_checks(dict(net.named_parameters()), facts["params"], rtol=1e-5)


@pytest.mark.parametrize("case", LOSS_FACTS)
def test_losses_and_gradients_match_the_original(case):
    facts = LOSS_FACTS[case]
    data, sde_name, reweighted, method = case.split("_", 3)
    name, dim = data[:-1], int(data[-1])
    net = fill(ScoreNetwork(dim, [16, 16], 8, [32, 32]))
    sde, streams = toy_sde(sde_name), Streams.seeded(facts["seed"])
    x0 = DATA[name].draw(facts["batch_size"], dim, streams)
    eps = streams.normal(tuple(x0.shape))
    t = draw_times(sde, len(x0), streams.numpy, reweighted=reweighted == "rw1")
    np.testing.assert_allclose(x0, LOSSES[f"{case}/x"], atol=1e-6)
    np.testing.assert_allclose(eps, LOSSES[f"{case}/eps"], rtol=1e-6)
    np.testing.assert_allclose(t, LOSSES[f"{case}/t"], rtol=1e-5)
    loss = toy_loss(net, sde, method, x0, eps, t)
    for value, key in (
        (loss.total, "loss"),
        (loss.first, "loss1"),
        (loss.second, "loss2_weighted"),
        (loss.third, "loss3_weighted"),
    ):
        np.testing.assert_allclose(float(value.detach()), facts[key], rtol=1e-4, err_msg=key)
    loss.total.backward()
    gradients = {n: p.grad for n, p in net.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), float("inf"))
    np.testing.assert_allclose(float(norm), facts["grad_norm"], rtol=1e-3)
    expected = LOSSES[f"{case}/grad/net.layers.2.weight"]
    np.testing.assert_allclose(gradients["net.layers.2.weight"], expected, atol=1e-3 * np.abs(expected).max())
    hdsm_cases.compare_checks(gradients, facts["grad_checks"], rtol=2e-3)


def test_wrong_methods_and_dimensions_are_refused():
    net, x = ScoreNetwork(3, [4], 4, [4]), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="must be one of"):
        toy_loss(net, toy_sde("VE"), "first", x, x, torch.ones(2))
    with pytest.raises(ValueError, match="not in 3"):
        toy_loss(net, toy_sde("VE"), METHODS[-1], x, x, torch.ones(2))
    with pytest.raises(ValueError, match="one of VE, VP"):
        toy_sde("subVP")
