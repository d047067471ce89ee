"""Few-step rules by configuration: the network of an experiment, sampled as ``config.sampling`` says."""

import experiments
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.correctors import NoneCorrector
from score_core.errors import UsageError
from score_core.jax.noise import PerSampleNoise
from score_core.jax.sampling import get_pc_sampler
from score_core.solvers.heun import Heun
from score_sde.configs.load import load_config
from score_sde.jax_experiment import JaxExperiment


def experiment(**sampling):
    config = load_config("digits")
    with config.unlocked():
        for key, value in experiments.TINY.items():
            section, name = key.split(".")
            config[section][name] = value
        config.sampling.update(sampling)
    return JaxExperiment(config)


def test_a_configuration_names_rule_steps_and_spacing(monkeypatch):
    """The configured sampler is the driver with the configured options; the network is a cheap one."""
    monkeypatch.setattr(JaxExperiment, "apply_fn", lambda self, params, x, labels, dropout_key=None: 0.9 * x)
    few = experiment(predictor="Heun", steps=3, spacing="log_snr")
    noise = PerSampleNoise(jax.random.PRNGKey(0), jnp.arange(2), few.image_shape)
    samples = few.sampler({}, noise)
    options = {"eps": 1e-3, "inverse_scaler": few.inverse_scaler, "steps": 3, "spacing": "log_snr"}
    driver = get_pc_sampler(few.sde, few.apply_fn, Heun, NoneCorrector, snr=0.16, **options)
    assert int(samples.nfe) == 5
    np.testing.assert_allclose(samples.images, jax.jit(driver)({}, noise).images, rtol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"predictor": "ddim", "eta": 2.0}, r"sampling\.eta is 2\.0"),
        ({"predictor": "heun", "spacing": "karras"}, r"sampling\.spacing is 'karras'"),
        ({"steps": 5}, r"EulerMaruyamaPredictor takes model\.num_scales"),
        ({"predictor": "dpm_solver"}, r"Unknown predictor 'dpm_solver'; known: .*dpm_solver_pp_2m"),
    ],
)
def test_a_value_that_does_not_fit_is_a_usage_error(sampling, message):
    with pytest.raises(UsageError, match=message):
        experiment(**sampling).pc_sampler()
