"""What bfloat16 changes: held-out loss, bits/dim and FID of the trained digits network, in both frameworks.

    python -m score_sde --config digits --workdir DIR                            (5 to 8 minutes; not done here)
    uv run python benchmarks/bfloat16_digits.py DIR [--images 48] [--samples 500]

The same parameters, images and random numbers with float32 and with bfloat16 (JAX: ``training.dtype``; PyTorch:
autocast). Loss: mean over the test images and four times each. Bits/dim by exponential_rk45, one probe. FID of the
``digits`` extractor against the training images, 20 steps of dpm_solver_pp_2m.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 125


class Wing(NamedTuple):
    """The three numbers of one framework and precision, as functions of NumPy arrays [B, H, W, C]."""

    losses: Callable[[Any, int], Any]
    bits: Callable[[Any], Any]
    samples: Callable[[int, int], Any]


def jax_wing(experiment: Any, params: Any, bfloat16: bool) -> Wing:
    """The JAX wing."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from score_core.correctors import get_corrector
    from score_core.jax.likelihood import get_likelihood_fn
    from score_core.jax.noise import PerSampleNoise, probe
    from score_core.jax.sampling import get_pc_sampler
    from score_core.jax.training import get_loss_fn
    from score_core.predictors import get_predictor
    from score_sde.models.utils import apply_fn as apply_of

    model = experiment.model.clone(dtype=jnp.bfloat16 if bfloat16 else jnp.float32)
    apply_fn: Any = apply_of(model)
    loss_fn = jax.jit(get_loss_fn(experiment.sde, apply_fn, continuous=True, reduce_mean=True), static_argnums=3)
    rules = (get_predictor("dpm_solver_pp_2m"), get_corrector("none"))
    sampler = jax.jit(
        get_pc_sampler(experiment.sde, apply_fn, *rules, snr=0.0, steps=20, inverse_scaler=experiment.inverse_scaler)
    )
    bits = get_likelihood_fn(
        experiment.sde, apply_fn, inverse_scaler=experiment.inverse_scaler, solver="exponential_rk45"
    )

    def losses(data: Any, seed: int) -> Any:
        return np.asarray(loss_fn(params, jax.random.PRNGKey(seed), jnp.asarray(data), False))

    def bpd(data: Any) -> Any:
        draws = probe(jax.random.PRNGKey(1), jnp.arange(len(data)), data.shape, "Rademacher")
        return np.asarray(bits(params, jnp.asarray(data), draws).bpd)

    def samples(first: int, count: int) -> Any:
        noise = PerSampleNoise(jax.random.PRNGKey(0), jnp.arange(first, first + count), experiment.image_shape)
        return np.asarray(sampler(params, noise).images)

    return Wing(losses, bpd, samples)


def torch_wing(experiment: Any, params: Any, bfloat16: bool) -> Wing:
    """The PyTorch wing, with the JAX wing's random numbers."""
    import numpy as np
    import torch

    from score_core.correctors import get_corrector
    from score_core.predictors import get_predictor
    from score_core.torch import networks
    from score_core.torch.likelihood import get_likelihood_fn
    from score_core.torch.noise import PerSampleNoise, probe
    from score_core.torch.sampling import get_pc_sampler
    from score_core.torch.threefry import prng_key
    from score_core.torch.training import get_apply_fn, get_loss_fn

    model = networks.create_model(experiment.config, flavor="jax").eval().requires_grad_(False)
    networks.load_flax_tree(model, params)
    apply_fn: Any = get_apply_fn(model, torch.bfloat16 if bfloat16 else None)
    loss_fn = get_loss_fn(experiment.sde, apply_fn, continuous=True, reduce_mean=True)
    rules = (get_predictor("dpm_solver_pp_2m"), get_corrector("none"))
    sampler = get_pc_sampler(
        experiment.sde, apply_fn, *rules, snr=0.0, steps=20, inverse_scaler=experiment.inverse_scaler
    )
    bits = get_likelihood_fn(
        experiment.sde, apply_fn, inverse_scaler=experiment.inverse_scaler, solver="exponential_rk45"
    )

    def tensor(data: Any) -> Any:
        return torch.tensor(np.asarray(data, np.float32)).permute(0, 3, 1, 2).contiguous()

    @torch.no_grad()
    def losses(data: Any, seed: int) -> Any:
        return loss_fn(None, prng_key(seed), tensor(data), False).numpy()

    def bpd(data: Any) -> Any:
        x = tensor(data)
        return bits(None, x, probe(prng_key(1), torch.arange(len(x)), tuple(x.shape), "Rademacher")).bpd.numpy()

    def samples(first: int, count: int) -> Any:
        height, width, channels = experiment.image_shape
        noise = PerSampleNoise(prng_key(0), torch.arange(first, first + count), (channels, height, width))
        return sampler(None, noise).images.permute(0, 2, 3, 1).numpy()

    return Wing(losses, bpd, samples)


def main() -> None:
    """Prints one row a framework and precision."""
    import numpy as np

    from score_core.data import to_uint8
    from score_core.metrics import Statistics, compute_metrics, get_extractor
    from score_sde.configs.load import load_config
    from score_sde.jax_experiment import JaxExperiment as Experiment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--images", type=int, default=48, help="test images for bits/dim")
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()
    experiment = Experiment(load_config("digits"))
    last = max((options.workdir / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
    params = experiment.load_state(last).params_ema
    extractor = get_extractor("digits")

    def statistics(images: Any) -> Statistics:
        header = {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
        return Statistics.from_activations(extractor(images)[0], None, header=header)

    def all_images(split: str) -> Any:
        with experiment.pipeline(split, 200, seed=0).epoch() as epoch:
            return np.concatenate([batch.image[batch.valid] for batch in epoch])

    reference, test = statistics(all_images("train")), all_images("test")
    noise = np.random.default_rng(0).random(test.shape, np.float32)
    scaled, dequantized = (
        np.asarray(a, np.float32) for a in (experiment.scale(test), experiment.dequantize(test, noise))
    )
    print("| framework | precision | held-out loss | bits/dim | largest difference of an image | FID |", flush=True)
    print("|---|---|---|---|---|---|")
    for name, build in (("JAX", jax_wing), ("PyTorch", torch_wing)):
        exact: Any = None
        for bfloat16 in (False, True):
            wing = build(experiment, params, bfloat16)
            loss = np.mean([wing.losses(scaled, seed) for seed in range(4)])
            bits = wing.bits(dequantized[: options.images])
            exact = bits if exact is None else exact
            starts = range(0, options.samples, BATCH)
            drawn = np.concatenate([to_uint8(wing.samples(first, BATCH)) for first in starts])
            scores = compute_metrics(statistics(drawn[: options.samples]), reference)
            print(
                f"| {name} | {'bfloat16' if bfloat16 else 'float32'} | {loss:.5f} | {bits.mean():.4f} | "
                f"{np.abs(bits - exact).max():.4f} | {scores['fid']:.2f} ± {scores['fid_se']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
