"""The dequantiser's loss against the original's, drawn from the stored seed."""

import goldens
import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hdsm_cases import gentle

from score_core.data import get_data_inverse_scaler, get_data_scaler
from score_flow_hdsm.dequantizer import VARIANTS, Dequantizer
from score_flow_hdsm.dequantizer_loss import get_dequantizer_loss_fn

GOLDEN = hdsm_cases.load("dequantizer_loss.npz")
FACTS = hdsm_cases.load("dequantizer_loss.json")


def setting(case, network=hdsm_cases.SMALLEST_NETWORK):
    facts = FACTS[case]
    kind = case.split("_")[1]
    config = hdsm_cases.published(f"{kind}/cifar10_ddpmpp_continuous", "mle_score_ode", network)
    module = Dequantizer(
        VARIANTS["cifar10"]._replace(
            filters=facts["deq"]["filters"],
            components=facts["deq"]["components"],
            blocks=facts["deq"]["blocks"],
            heads=facts["deq"]["attn_heads"],
        )
    )
    x = jnp.asarray(GOLDEN[f"{case}/image"])
    shapes = jax.eval_shape(module.init, jax.random.PRNGKey(0), x, x)
    variables = goldens.unflatten({n: jnp.asarray(gentle(n, s.shape)) for n, s in goldens.flatten(shapes).items()})
    return config, module, variables, x


@pytest.mark.parametrize("case", FACTS)
def test_loss_and_gradient_match_the_original(case):
    facts = FACTS[case]
    config, module, variables, x = setting(case)
    apply, params = hdsm_cases.network_of(config)
    loss_fn = get_dequantizer_loss_fn(
        hdsm_cases.sde_of(config),
        apply,
        module.apply,
        scaler=get_data_scaler(True),
        inverse_scaler=get_data_inverse_scaler(True),
        eps=facts["eps"],
        importance_weighting="iw1" in case,
        eps_offset="off1" in case,
    )

    def objective(variables):
        nats, bpd = loss_fn(variables, params, jax.random.PRNGKey(facts["seed"]), x, "train1" in case)
        return jnp.mean(nats), jnp.mean(bpd)

    with jax.threefry_partitionable(False):
        (loss, bpd), grads = jax.value_and_grad(objective, has_aux=True)(variables)
    np.testing.assert_allclose(loss, facts["loss"], rtol=1e-4)
    np.testing.assert_allclose(bpd, facts["bpd"], rtol=1e-4)
    flat = goldens.flatten(grads)
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(g, np.float64))) for g in flat.values()))
    np.testing.assert_allclose(norm, facts["grad_norm"], rtol=1e-3)
    hdsm_cases.compare_checks(flat, facts["grad_checks"], rtol=2e-3)
