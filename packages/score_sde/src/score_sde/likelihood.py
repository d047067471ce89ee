"""Exact likelihoods under the names of the original's ``likelihood``."""

from collections.abc import Callable
from typing import Any

import jax

from score_core.jax import likelihood as core
from score_core.jax.noise import probe
from score_sde.models.utils import apply_fn

__all__ = ["get_likelihood_fn"]


def get_likelihood_fn(
    sde: Any,
    model: Any,
    inverse_scaler: Callable[[Any], Any],
    hutchinson_type: str = "Rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "RK45",
    eps: float = 1e-5,
) -> Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, jax.Array, int]]:
    """Bits/dim by the probability-flow ODE (section 4.3).

    Arguments:
        sde: the forward SDE. model: the Flax network.
        inverse_scaler: network range to [0, 1].
        hutchinson_type: "Rademacher" or "Gaussian".
        rtol, atol, method, eps: see :func:`score_core.jax.likelihood.get_likelihood_fn`; methods other than RK45 run
            in SciPy.

    Returns:
        ``likelihood_fn(rng, state, data) -> (bpd [B], z [B, H, W, C], nfe)`` with the state's averaged parameters. The
        data are **dequantised** images in the network's range (see :func:`score_core.data.dequantize`): bits/dim of
        undithered bytes mean nothing. Unlike the original's, nothing has a leading device axis.
    """
    estimate = core.get_likelihood_fn(
        sde,
        apply_fn(model),
        inverse_scaler=inverse_scaler,
        rtol=rtol,
        atol=atol,
        method=method,
        eps=eps,
        solver="device" if method == "RK45" else "scipy",
    )

    def likelihood_fn(rng: jax.Array, state: Any, data: jax.Array) -> tuple[jax.Array, jax.Array, int]:
        _, key = jax.random.split(rng)
        result = estimate(state.params_ema, data, probe(key, None, data.shape, hutchinson_type))
        return result.bpd, result.z, int(result.nfe)

    return likelihood_fn
