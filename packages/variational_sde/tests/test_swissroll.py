"""The Swissroll study: data, network, ten steps and trajectories of the original; the whole command in small."""

import json

import numpy as np
import pytest
import torch
from variational_golden import close, filled, golden, plugin, tensor

from score_core.random import RecordedNoise
from score_core.repro.tables import load_package
from score_core.runs.results import read_results
from variational_sde.__main__ import main
from variational_sde.objectives import DsmNoise, ElboNoise
from variational_sde.swissroll import expected_log_density, log_density, swiss_roll
from variational_sde.torch import checkpoint
from variational_sde.torch.mlp import MLP
from variational_sde.torch.sampling import euler_maruyama
from variational_sde.torch.swissroll_study import bound, total_variation
from variational_sde.torch.training import training_step

ARRAYS = golden("swissroll.npz")


def noise_of(name):
    return [tensor(ARRAYS[f"{name}/{key}"]) for key in ("time_u", "eps_t", "v_raw", "eps_T")]


def test_data():
    rng = np.random.RandomState(int(ARRAYS["roll_seed"]))
    close(swiss_roll(64, rng), ARRAYS["roll"], 1e-7)
    close(swiss_roll(32, rng, noise=0.0), ARRAYS["roll_noise0"], 1e-7)


def test_network():
    record = golden("params_mlp_swissroll.json")
    network = MLP()
    assert [[k, list(v.shape), "float32"] for k, v in network.state_dict().items()] == record["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == record["n_params"]
    filled(network)
    x, t = tensor(ARRAYS["roll"][:8]), tensor(ARRAYS["t"])
    close(network(x, t), ARRAYS["mlp_out"], 1e-6)
    close(network(x, t.reshape(-1)), ARRAYS["mlp_out_t1d"], 1e-6)


def test_loss_and_gradients():
    network = filled(MLP())
    sde, x = plugin(network), tensor(ARRAYS["roll"][:8])
    loss = sde.dsm(x, DsmNoise(tensor(ARRAYS["dsm_time_u"]).reshape(-1), tensor(ARRAYS["dsm_eps"])))
    close(loss, ARRAYS["dsm"], 1e-6)
    loss.mean().backward()
    for key, parameter in network.named_parameters():
        expected = ARRAYS[f"dsm_grad/{key}"]
        close(parameter.grad.reshape(-1)[: expected.size], expected, 5e-6, key)
        assert float(parameter.grad.double().norm()) == pytest.approx(float(ARRAYS[f"dsm_gradnorm/{key}"]), rel=1e-5)
    debiased = plugin(filled(MLP()), debias=True)
    t = debiased.times.inverse_cdf(tensor(ARRAYS["dsm_debias_time_u"]).reshape(-1))
    close(debiased.dsm(x, DsmNoise(t, tensor(ARRAYS["dsm_debias_eps"]))), ARRAYS["dsm_debias"], 1e-5)


@pytest.mark.parametrize("vtype", ["rademacher", "gaussian"])
def test_bound_and_its_gradients(vtype):
    network = filled(MLP())
    sde, x = plugin(network), tensor(ARRAYS["roll"][:8])
    u, e, raw, e_T = noise_of(f"elbo_{vtype}")
    v = (raw >= 0.5).float() * 2 - 1 if vtype == "rademacher" else raw
    noise = ElboNoise(u.reshape(-1), e, v, e_T)
    close(sde.elbo(x, noise), ARRAYS[f"elbo_{vtype}/elbo"], 5e-6)
    if vtype == "rademacher":
        (-sde.train().elbo(x, noise).mean()).backward()
        for key, parameter in network.named_parameters():
            norm = float(ARRAYS[f"elbo_train_gradnorm/{key}"])
            assert float(parameter.grad.double().norm()) == pytest.approx(norm, rel=1e-4), key
        close(network.main[6].weight.grad, ARRAYS["elbo_train_grad/main.6.weight"], 2e-5)


def test_ten_steps():
    settings = {"network": {"kind": "mlp"}, "sde": {}, "vtype": "rademacher", "debias": False}
    state = checkpoint.new_state(settings, lr=0.001, seed=0, device=torch.device("cpu"))
    filled(state.model.a)
    for step in range(10):
        u, e = tensor(ARRAYS["train_time_u"][step]).reshape(-1), tensor(ARRAYS["train_eps"][step])
        state.model.draw_dsm_noise = lambda *_, u=u, e=e: DsmNoise(u, e)
        loss = training_step(state, tensor(ARRAYS["train_x"][step]))
        assert float(loss) == pytest.approx(float(ARRAYS["train_loss"][step]), rel=2e-6)
    for key, parameter in state.model.a.named_parameters():
        close(parameter.reshape(-1)[:5], ARRAYS[f"train_final_first5/{key}"], 2e-5, key)
        total = float(parameter.detach().double().sum())
        assert total == pytest.approx(float(ARRAYS[f"train_final_sum/{key}"]), abs=2e-5 * parameter.numel())


@pytest.mark.parametrize("lmbd", ["0", "0.5", "1"])
def test_trajectories(lmbd):
    noise = RecordedNoise(tensor(ARRAYS["em_x0"]), None, tensor(ARRAYS["em_noise"]))
    states = euler_maruyama(plugin(filled(MLP())), noise, 25, lmbd=float(lmbd), keep=range(1, 26))
    close(states, ARRAYS[f"em_lambda_{lmbd}"], 5e-6)


def trained():
    arrays = golden("swissroll_trained.npz")
    network = MLP()
    network.load_state_dict(
        {k.removeprefix("weight/"): tensor(v) for k, v in arrays.items() if k.startswith("weight/")}
    )
    return plugin(network), arrays


@pytest.mark.parametrize("lmbd", ["0", "0.5", "1"])
def test_the_originals_trained_network(lmbd):
    sde, arrays = trained()
    noise = RecordedNoise(tensor(arrays["em_x0"]), None, tensor(arrays["em_noise"]))
    kept = [int(step) for step in arrays["em_kept_steps"]]
    close(euler_maruyama(sde, noise, 100, lmbd=float(lmbd), keep=kept), arrays[f"em_lambda_{lmbd}"], 2e-5)


def test_the_originals_trained_network_has_the_originals_bound():
    """100,000 points: -2.119 with a standard error of 0.046, the reference over 1,000,000."""
    sde, _ = trained()
    values = bound(sde, 100_000, 5)
    reference = golden("swissroll_reference_run.json")
    error = values.std() / np.sqrt(len(values))
    assert values.mean() == pytest.approx(reference["final_elbo_1M_points"], abs=4 * error)
    assert error < 0.08


def test_the_datas_own_density():
    """Its integral is one, and its mean logarithm converges: what no model exceeds."""
    grid = np.linspace(-4.5, 4.5, 181)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    assert np.exp(log_density(points, 2000)).sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1, abs=1e-3)
    value, error = expected_log_density(4000)
    assert value == pytest.approx(-1.963, abs=4 * error)
    assert log_density(points[:5], 4000) == pytest.approx(log_density(points[:5], 8000), abs=1e-9)


def test_total_variation():
    one = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert total_variation(one, one) == 0
    assert total_variation(one, one + 3) == 1


SMOKE = next(row for row in load_package("variational_sde") if row.id == "variational_sde/swissroll").smoke.split()


@pytest.mark.slow
def test_the_study_in_small_stopped_and_resumed(tmp_path):
    """All files and figures; a run that was stopped gives the same network."""
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert main(["swissroll", f"--workdir={straight}", *SMOKE]) == 0
    for name in ("training", "density", "trajectories"):
        words = json.loads((straight / f"figures/{name}.json").read_text())
        assert (straight / f"figures/{name}.png").exists() and words["alt"] and words["caption"]
    results = {r.metric: r for r in read_results(straight / "results.json")}
    wanted = {"elbo", "loss", "ode_log_likelihood", "data_log_density"}
    assert set(results) == wanted | {f"total_variation_lambda_{lmbd}" for lmbd in ("0", "0_5", "1")}
    assert results["elbo"].value < results["data_log_density"].value
    assert results["ode_log_likelihood"].value < results["data_log_density"].value
    row = next(row for row in load_package("variational_sde") if row.id == "variational_sde/swissroll")
    assert {reference.metric for reference in row.metrics} == set(results)

    shorter = [flag for flag in SMOKE if "num_iterations" not in flag]
    assert main(["swissroll", f"--workdir={stopped}", *shorter, "--num_iterations=100"]) == 0
    assert main(["swissroll", f"--workdir={stopped}", *SMOKE]) == 0
    assert (straight / "checkpoint.pt").read_bytes() == (stopped / "checkpoint.pt").read_bytes()
    assert (straight / "curve.json").read_text() == (stopped / "curve.json").read_text()


@pytest.mark.slow
def test_the_debias_study_in_small(tmp_path):
    row = next(row for row in load_package("variational_sde") if row.id == "variational_sde/debias")
    assert main(["debias", "--dataset=digits", f"--workdir={tmp_path}", *row.smoke.split()]) == 0
    results = {r.metric: r for r in read_results(tmp_path / "results.json")}
    assert set(results) == {reference.metric for reference in row.metrics}
    difference = results["bits_per_dim_debiased"].value - results["bits_per_dim_uniform"].value
    assert results["bits_per_dim_difference"].value == pytest.approx(difference)
    assert (tmp_path / "figures/bpd.png").exists()
