"""SDE tables, times, losses and bounds against the original's numbers; laws that must hold."""

import numpy as np
import pytest
import torch
from scipy import integrate
from variational_golden import case, close, filled, golden, net, noise_of_rounding, plugin, tensor

from variational_sde import times
from variational_sde.logit import LogitTransform, dequantise
from variational_sde.objectives import DsmNoise, ElboNoise, bound_in_bits, log_normal, log_standard_normal, perturb
from variational_sde.sde import VariancePreserving
from variational_sde.torch.reverse_sde import Generators, PluginReverseSDE, VariancePreservingSDE, probe
from variational_sde.torch.unet import UNet


def test_sde_tables():
    arrays = golden("sde_tables.npz")
    t, y = tensor(arrays["t"]), tensor(arrays["y"])
    sde = VariancePreserving()
    close(sde.beta(t), arrays["beta"], 2e-7)
    close(torch.exp(sde.log_mean_coefficient(t)), arrays["mean_weight"], 2e-7)
    _mean, std = sde.marginal_prob(y, t)
    close(std, arrays["std"], 2e-7)
    close(std**2, arrays["var"], 3e-7)
    close(sde.drift(y, t), arrays["f"], 2e-7)
    close(sde.diffusion(t)[:, None].expand(y.shape), arrays["g"], 2e-7)
    close(std**2 / sde.diffusion(t) ** 2, arrays["debias_weight_std2_over_g2"], 4e-7)
    close(perturb(sde, y, t, tensor(arrays["sample_eps"])), arrays["sample_yt"], 3e-7)
    close(std[:, None], arrays["sample_std"], 2e-7)
    other = VariancePreserving(0.5, 5.0)
    close(other.beta(t), arrays["alt_beta"], 2e-7)
    close(torch.exp(other.log_mean_coefficient(t)), arrays["alt_mean_weight"], 2e-7)
    close(other.marginal_prob(y, t)[1] ** 2, arrays["alt_var"], 4e-7)


CONSTANTS = golden("debias_time_constants.json")


@pytest.mark.parametrize("name", CONSTANTS)
def test_debiased_times(name):
    record, arrays = CONSTANTS[name], case(golden("debias_time.npz"), name)
    sde = VariancePreserving(T=record["T"], t_epsilon=record["t_epsilon"])
    original, exact = times.DebiasedTimes(sde), times.DebiasedTimes(sde, exact=True)
    found = original.constants
    assert (found.Z, found.r_eps, found.antiderivative_eps) == (
        record["Z"],
        record["r_eps"],
        record["antiderivative_eps"],
    )
    t = original.inverse_cdf(arrays["u"])
    assert t.dtype == np.float32
    close(t, arrays["t"], 2e-6)
    late = tensor(arrays["t"]).clamp(min=record["t_epsilon"])
    close(original.cdf(late), arrays["phi_of_t_gt_eps"], 2e-6)
    double = exact.inverse_cdf(arrays["u"].astype(np.float64))
    np.testing.assert_allclose(double, arrays["t_float64_formula"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(exact.cdf(double), arrays["u"], rtol=0, atol=1e-14)
    close(exact.inverse_cdf(arrays["u"]), double.astype(np.float32), 3e-7)
    torch.manual_seed(3)
    u = Generators().uniform(16, torch.device("cpu"))
    close(u, arrays["seed_u"].reshape(-1), 0)
    close(original.inverse_cdf(u), arrays["seed_t"].reshape(-1), 2e-6)


@pytest.mark.parametrize("betas", [(0.1, 20.0), (0.5, 5.0), (2.0, 2.0)])
def test_exact_times_have_their_density(betas):
    law = times.DebiasedTimes(VariancePreserving(*betas), exact=True)
    u = np.linspace(0.01, 0.99, 9)
    t = law.inverse_cdf(u)
    areas = [
        integrate.quad(lambda s: float(law.density(np.array([s]))[0]), 0, end, points=[1e-3], limit=200)[0] for end in t
    ]
    np.testing.assert_allclose(areas, u, atol=1e-7)
    np.testing.assert_allclose(law.cdf(t), u, atol=1e-12)
    ignored = times.DebiasedTimes(VariancePreserving()).inverse_cdf(u)
    assert betas == (0.1, 20.0) or np.abs(t - ignored).max() > 0.01  # the original's times are wrong for these betas


DSM = golden("dsm.npz")
DSM_CASES = list(dict.fromkeys(key.split("/")[0] for key in DSM))


def network_of(name):
    return net("mnist" if "mnist" in name else name.split("_")[1])


@pytest.mark.parametrize("name", DSM_CASES)
def test_dsm(name):
    arrays = case(DSM, name)
    network = network_of(name)
    sde = plugin(network, float(arrays["T0"]), debias=bool(arrays["debias"]))
    seed = int(arrays["image_seed"])
    images = np.random.RandomState(seed).randint(0, 256, arrays["images"].shape).astype(np.uint8)
    np.testing.assert_array_equal(images, arrays["images"])
    torch.manual_seed(seed)
    u = Generators().uniform_like(torch.zeros(arrays["x"].shape))
    close(u, arrays["dequant_u"], 0)
    x = dequantise(tensor(images).float(), u)
    x = LogitTransform().forward(x) if arrays["real"] else x
    close(x, arrays["x"], 1e-6)
    noise = sde.draw_dsm_noise(x, Generators())
    close(noise.t, arrays["t"].reshape(-1), 2e-6)
    close(noise.e, arrays["eps"], 0)
    loss = sde.dsm(tensor(arrays["x"]), DsmNoise(tensor(arrays["t"]).reshape(-1), noise.e))
    close(loss, arrays["loss_per_sample"], 1e-5)
    loss.mean().backward()
    close(loss.mean(), arrays["loss"], 1e-5)
    rounding = noise_of_rounding(network)
    gradients = {key: p.grad for key, p in network.named_parameters()}
    norms = np.array([float(g.double().norm()) for g in gradients.values()])
    exact = np.array([key not in rounding for key in gradients])
    np.testing.assert_allclose(norms[exact], arrays["grad_norms"][exact], rtol=2e-4, atol=1e-5 * norms.max())
    for key, value in arrays.items():
        if key.startswith("grad/"):
            close(gradients[key[5:]].reshape(-1)[: value.size], value, 5e-5, key)


ELBO = golden("elbo.npz")


@pytest.mark.parametrize("name", list(dict.fromkeys(key.split("/")[0] for key in ELBO)))
def test_elbo(name):
    arrays = case(ELBO, name)
    sde = plugin(network_of(name), float(arrays["T0"]), vtype=str(arrays["vtype"]))
    x = dequantise(tensor(arrays["images"]).float(), tensor(arrays["dequant_u"]))
    ldj = torch.zeros(len(x))
    if arrays["real"]:
        ldj, x = LogitTransform().log_det(x), LogitTransform().forward(x)
    close(x, arrays["x"], 1e-6)
    close(ldj, arrays["ldj"], 1e-6)
    noise = ElboNoise(*(tensor(arrays[key]) for key in ("t", "eps_t", "v", "eps_T")))
    noise = noise._replace(t=noise.t.reshape(-1))
    close(perturb(sde.law, x, torch.full_like(noise.t, sde.law.T), noise.e_T), arrays["yT"], 2e-6)
    terms = sde.elbo_terms(x, noise)
    close(terms.log_prior, arrays["log_prior"], 2e-6)
    close(terms.divergence, arrays["div_term"], 1e-5)
    close(terms.energy, arrays["quad_term"], 1e-5)
    close(terms.elbo, arrays["elbo"], 1e-5)
    bpd = bound_in_bits((terms.elbo + ldj).double(), int(arrays["dimx"]))
    close(bpd, arrays["bpd"], 1e-5)
    close(bpd.mean(), arrays["bpd_mean"], 1e-5)
    close(bpd.std(correction=0), arrays["bpd_std_population"], 2e-5)


def test_helpers():
    arrays = golden("helpers.npz")
    x, mean, log_var = (tensor(arrays[key]) for key in ("x", "mean", "log_var"))
    close(log_normal(x, mean, log_var), arrays["log_normal"], 1e-6)
    close(log_normal(x, 0.0, 0.0), arrays["log_normal_std"], 1e-6)
    close(log_standard_normal(x), arrays["log_standard_normal"], 1e-6)
    for kind in ("rademacher", "gaussian", "normal"):
        raw = tensor(arrays[f"v_{kind}_raw"])
        expected = (raw >= 0.5).float() * 2 - 1 if kind == "rademacher" else raw
        close(expected, arrays[f"v_{kind}"], 0)
    with pytest.raises(ValueError, match="rademacher or gaussian"):
        probe((2,), "cauchy")
    logit = LogitTransform()
    assert str(logit) == "LogitTransform(0.05)"
    image, real = tensor(arrays["logit_x"]), tensor(arrays["logit_y"])
    close(logit.forward(image), arrays["logit_y"], 1e-6)
    close(logit.forward(image), arrays["logit_y_only"], 1e-6)
    close(logit.log_det(image), arrays["logit_ldj"], 1e-6)
    close(logit.inverse(real), arrays["logit_rev"], 1e-6)
    close(-logit.log_det(logit.inverse(real)), arrays["logit_rev_logp"], 1e-6)
    close(logit.inverse(tensor(arrays["logit_w"])), arrays["logit_rev_w"], 1e-6)
    narrow = LogitTransform(1e-6)
    inner = 0.05 + 0.9 * image  # what this case was computed at
    close(narrow.forward(inner), arrays["logit_alpha1e-6_y"], 1e-6)
    close(narrow.log_det(inner), arrays["logit_alpha1e-6_ldj"], 1e-6)
    exponential = {rate: tensor(arrays[f"texp_u_{rate}"]) for rate in ("0", "1.5")}
    for rate, u in exponential.items():
        close(times.truncated_exponential_sample(float(rate), u), arrays[f"texp_sample_{rate}"], 1e-6)
    grid = np.linspace(0, 1, 21, dtype=np.float32)
    close(times.truncated_exponential_density(1.5, grid), arrays["texp_density_1.5"], 1e-6)
    close(times.truncated_exponential_density(0, grid[:1].astype(float)), arrays["texp_density_0"], 0)
    with pytest.raises(ValueError, match="0 or more"):
        times.truncated_exponential_sample(-1.0, grid)
    ve = times.VETimes(0.01, 50.0, 0.001)
    close(ve.inverse_cdf(tensor(arrays["ve_u"])), arrays["ve_inv_Phi"], 1e-6)
    close(ve.cdf(tensor(arrays["ve_t"])), arrays["ve_Phi"], 1e-6)
    # the file itself is 1.4e-6 away from float64 arithmetic
    close(ve.density(tensor(arrays["ve_t"])), arrays["ve_density"], 2e-6)
    close(ve.inverse_cdf(arrays["ve_sample_u"]), arrays["ve_sample"], 1e-6)
    ramp = [times.get_beta(i, 10, 0.1, 0.9) for i in (0, 1, 5, 10, 20)]
    np.testing.assert_allclose(ramp, arrays["get_beta"])
    with pytest.raises(ValueError, match="anneal"):
        times.get_beta(1, 0)


def test_the_time_density_of_ve_integrates_to_one_and_is_defined_below_epsilon():
    ve = times.VETimes(0.01, 50.0, 0.001)
    area, _ = integrate.quad(lambda t: float(ve.density(np.array([t]))[0]), 0, 1, points=[0.001])
    assert area == pytest.approx(1, abs=1e-8)
    assert ve.cdf(np.array([0.0, 0.0005, 1.0]))[[0, 2]].tolist() == pytest.approx([0, 1])


def test_one_image_alone():
    """A batch of one, which ends the original with an error."""
    sde = plugin(filled(UNet(1, 8, 32, ch_mult=(1,), num_res_blocks=0)))
    x = torch.zeros(1, 1, 8, 8)
    assert sde.dsm(x).shape == (1,) and sde.elbo(x).shape == (1,)


def test_the_bound_is_trainable_in_training_mode_only():
    sde = plugin(filled(UNet(1, 8, 32, ch_mult=(1,), num_res_blocks=0)))
    assert not sde.elbo(torch.zeros(2, 1, 8, 8)).requires_grad
    sde.train().elbo(torch.zeros(2, 1, 8, 8)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in sde.a.parameters())


def test_state_dict_holds_the_shared_time_twice():
    sde = PluginReverseSDE(VariancePreservingSDE(T=0.5), UNet(1, 8, 32, ch_mult=(1,), num_res_blocks=0))
    assert list(sde.state_dict())[:3] == ["T", "base_sde.T", "a.temb_net.main.0.weight"]
    assert next(iter(dict(sde.named_parameters()))) == "T" and sde.T is sde.base_sde.T
