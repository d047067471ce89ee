"""A user's SDE, predictor and corrector, written against the original's names, run in everything unchanged."""

import json
import textwrap

import experiments
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core import correctors, predictors, sdes
from score_core.jax.noise import LegacyNoise
from score_core.jax.sampling import get_pc_sampler as get_core_sampler
from score_core.jax.training import create_state
from score_core.runs.results import read_results
from score_sde import datasets, likelihood, losses, sampling, sde_lib
from score_sde.__main__ import main
from score_sde.configs.load import load_config
from score_sde.models import utils as mutils

OWN = '''
import jax
import jax.numpy as jnp

from score_sde import sampling, sde_lib
from score_sde.configs.digits import get_config as digits

VERSION = 1


@sde_lib.register_sde(name="ornstein_uhlenbeck")
class OrnsteinUhlenbeck(sde_lib.SDE):
    """dx = -rate x dt + sqrt(2 rate) s dw, with a constant rate and the stationary deviation s."""

    def __init__(self, rate, spread=1.0, N=100):
        super().__init__(N)
        self.rate, self.spread = rate, spread

    @property
    def T(self):
        return 1

    def sde(self, x, t):
        return -self.rate * x, self.spread * jnp.sqrt(2 * self.rate) * jnp.ones_like(t)

    def marginal_prob(self, x, t):
        decay = jnp.exp(-self.rate * t)
        return decay[:, None, None, None] * x, self.spread * jnp.sqrt(1 - decay**2)

    def prior_sampling(self, rng, shape):
        return self.spread * jax.random.normal(rng, shape)

    def prior_logp(self, z):
        d = z[0].size
        square = jnp.sum(z**2, axis=(1, 2, 3))
        return -d / 2 * jnp.log(2 * jnp.pi * self.spread**2) - square / (2 * self.spread**2)


@sampling.register_predictor(name="my_euler")
class MyEuler(sampling.Predictor):
    def update_fn(self, rng, x, t):
        z = jax.random.normal(rng, x.shape)
        drift, diffusion = self.rsde.sde(x, t)
        x_mean = x - drift / self.rsde.N
        return x_mean + diffusion[:, None, None, None] * jnp.sqrt(1.0 / self.rsde.N) * z, x_mean


@sampling.register_corrector(name="my_langevin")
class MyLangevin(sampling.Corrector):
    def update_fn(self, rng, x, t):
        for _ in range(self.n_steps):
            rng, step_rng = jax.random.split(rng)
            noise = jax.random.normal(step_rng, x.shape)
            step = 1e-4
            x_mean = x + step * self.score_fn(x, t)
            x = x_mean + jnp.sqrt(2 * step) * noise
        return x, x_mean


def get_config():
    config = digits()
    config.training.sde = "ornstein_uhlenbeck"
    config.model.rate = 3.0
    config.sampling.predictor = "my_euler"
    config.sampling.corrector = "my_langevin"
    config.sampling.n_steps_each = 2
    return config
'''


@pytest.fixture
def own_file(tmp_path):
    """The user's configuration file; what it registers is forgotten afterwards."""
    tables = (sdes.SDES, predictors.PREDICTORS, correctors.CORRECTORS)
    before = [dict(table) for table in tables]
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(OWN))
    yield path
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


@pytest.mark.slow
def test_training_sampling_and_likelihood_run_with_a_users_own_rules(own_file, tmp_path):
    flags = [
        f"--config={own_file}",
        f"--workdir={tmp_path / 'run'}",
        *experiments.tiny_flags(
            training__n_iters=4, training__snapshot_freq=4, eval__num_samples=90, eval__trajectory=False
        ),
    ]
    assert main(flags) == 0
    assert main([*flags, "--mode=eval"]) == 0
    results = {result.metric: result.value for result in read_results(tmp_path / "run" / "results.json")}
    assert {"loss", "bpd", "fid"} <= set(results)
    assert all(np.isfinite(list(results.values())))
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "ornstein_uhlenbeck" in json.dumps(record)


def test_a_users_sde_is_sampled_exactly_when_its_score_is_known(own_file):
    """Data N(0.5, 0.5^2) under the user's SDE, sampled by the user's rules with the true score."""
    config = load_config(str(own_file))
    sde = sde_lib.get_sde(config.training.sde, N=500, **config.model)

    def noise_prediction(_, x, labels):
        t = labels / 999
        mean, std = sde.marginal_prob(jnp.full_like(x, 0.5), t)
        decay = jnp.exp(-sde.rate * t)
        variance = (0.5 * decay) ** 2 + std**2
        return (std / variance)[:, None, None, None] * (x - mean)

    sampler = get_core_sampler(
        sde,
        noise_prediction,
        sampling.get_predictor("my_euler"),
        sampling.get_corrector("my_langevin"),
        snr=0.1,
        n_steps=2,
        denoise=False,
    )
    x = jax.jit(sampler)({}, LegacyNoise(jax.random.PRNGKey(0), (64, 8, 8, 1))).images
    assert float(x.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(x.std()) == pytest.approx(0.5, abs=0.02)


def test_editing_and_running_the_file_again_replaces_the_class_another_class_is_refused(own_file):
    load_config(str(own_file))
    first = predictors.PREDICTORS["my_euler"]
    load_config(str(own_file))
    assert predictors.PREDICTORS["my_euler"] is not first

    class Other(sampling.Predictor):
        def update(self, x, t, noise):
            return x, x

    with pytest.raises(ValueError, match="already registered"):
        sampling.register_predictor(Other, name="my_euler")


def test_a_missing_constructor_argument_is_named(own_file, tmp_path, capsys):
    text = own_file.read_text().replace("config.model.rate = 3.0", "pass")
    own_file.write_text(text)
    assert main([f"--config={own_file}", f"--workdir={tmp_path / 'run'}", *experiments.tiny_flags()]) == 2
    assert "needs rate" in capsys.readouterr().err


@pytest.mark.parametrize("base", [sampling.Predictor, sampling.Corrector])
def test_a_rule_without_an_update_is_refused_where_it_is_written(base):
    with pytest.raises(TypeError, match="Empty must define update_fn or"):
        type("Empty", (base,), {})


@pytest.mark.parametrize("name", ["VPSDE", "subVPSDE", "VESDE"])
def test_the_originals_classes_draw_and_index_under_jit(name):
    sde = getattr(sde_lib, name)(N=10)
    core = {"VPSDE": sdes.VPSDE, "subVPSDE": sdes.SubVPSDE, "VESDE": sdes.VESDE}[name](N=10)
    key = jax.random.PRNGKey(3)
    z = jax.random.normal(key, (2, 4, 4, 1))
    np.testing.assert_array_equal(sde.prior_sampling(key, (2, 4, 4, 1)), core.prior_sampling(z))
    np.testing.assert_array_equal(sde.prior_sampling(z), core.prior_sampling(z))
    table = "discrete_sigmas" if name == "VESDE" else "alphas"
    picked = jax.jit(lambda i: getattr(sde, table)[i])(jnp.array([0, 9]))
    np.testing.assert_array_equal(picked, getattr(core, table)[[0, 9]])
    if name != "VESDE":
        assert (sde.beta_0, sde.beta_1) == (0.1, 20)


@pytest.mark.parametrize("name", ["euler_maruyama", "reverse_diffusion", "ancestral_sampling", "none"])
def test_update_fn_is_update_with_noise_of_the_key(name):
    old = {
        "euler_maruyama": sampling.EulerMaruyamaPredictor,
        "reverse_diffusion": sampling.ReverseDiffusionPredictor,
        "ancestral_sampling": sampling.AncestralSamplingPredictor,
        "none": sampling.NonePredictor,
    }[name]
    sde, key = sde_lib.VPSDE(N=30), jax.random.PRNGKey(1)
    x, t = jnp.ones((3, 2, 2, 1)), jnp.array([0.3, 0.6, 1.0])
    score_fn = lambda x, t: -x  # noqa: E731
    expected = sampling.get_predictor(name)(sde, score_fn).update(x, t, jax.random.normal(key, x.shape))
    np.testing.assert_array_equal(old(sde, score_fn).update_fn(key, x, t), expected)
    _, noise_key = jax.random.split(key)
    langevin = sampling.LangevinCorrector(sde, score_fn, 0.1, 1)
    expected = correctors.LangevinCorrector(sde, score_fn, 0.1).step(x, t, jax.random.normal(noise_key, x.shape))
    np.testing.assert_array_equal(langevin.update_fn(key, x, t), expected)


@pytest.fixture(scope="module")
def small():
    """A tiny network with its state, and its configuration."""
    config = load_config("digits")
    with config.unlocked():
        config.data.image_size = 8
        config.model.update({"nf": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": (), "num_scales": 5})
        config.model.beta_max = 4.0
        config.training.batch_size = config.eval.batch_size = 16
    model, _, params = mutils.init_model(jax.random.PRNGKey(0), config)
    state = create_state(
        params, jax.random.PRNGKey(1), adam=losses.get_optimizer(config), lr=1e-3, ema_rate=0.9
    )._replace(step=jnp.asarray(1, jnp.int32))
    return config, model, state


def test_the_originals_functions_train_sample_and_measure(small):
    config, model, state = small
    sde = sde_lib.get_sde(config.training.sde, N=config.model.num_scales, **config.model)
    scaler = datasets.get_data_scaler(config)
    inverse_scaler = datasets.get_data_inverse_scaler(config)
    train, _, _ = datasets.get_dataset(config, uniform_dequantization=True)
    batch = next(iter(train))
    assert batch["image"].shape == (16, 8, 8, 1)
    assert 0 <= batch["image"].min() < batch["image"].max() < 1
    images = {"image": scaler(batch["image"])}
    step = jax.jit(losses.get_step_fn(sde, model, True, losses.optimization_manager(config), reduce_mean=True))
    (_, after), loss = step((jax.random.PRNGKey(2), state), images)
    assert np.isfinite(loss) and int(after.step) == 2
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True))
    held_out = losses.get_step_fn(sde, model, False, reduce_mean=True)
    (_, same), _ = held_out((jax.random.PRNGKey(2), after), images)
    assert same is after
    shape = (4, 8, 8, 1)
    pc = sampling.get_sampling_fn(config, sde, model, shape, inverse_scaler, 1e-3)
    drawn, nfe = pc(jax.random.PRNGKey(4), after)
    assert drawn.shape == shape and nfe == 10
    ode = sampling.get_ode_sampler(sde, model, shape, inverse_scaler, rtol=1e-2, atol=1e-2)
    bpd_fn = likelihood.get_likelihood_fn(sde, model, inverse_scaler, rtol=1e-2, atol=1e-2)
    bpd, z, nfe = bpd_fn(jax.random.PRNGKey(5), after, images["image"][:4])
    assert bpd.shape == (4,) and np.isfinite(bpd).all() and nfe > 0
    decoded, _ = ode(jax.random.PRNGKey(6), after, z)
    assert float(np.abs(scaler(decoded) - images["image"][:4]).max()) < 0.2  # encoded and decoded again


def test_evaluation_batches_are_one_pass_in_groups(small):
    config, _, _ = small
    _, test, source = datasets.get_dataset(config, additional_dim=2, evaluation=True)
    batches = list(test)
    assert [batch["image"].shape for batch in batches] == [(2, 16, 8, 8, 1)] * 5  # 180 images: 11 batches, 5 pairs
    assert batches[0]["label"].shape == (2, 16)
    assert source.split == "train"
