"""Time and peak memory of what a score_sde run consists of: training step, sampler step, likelihood evaluation.

    python benchmarks/score_sde_jax.py [--config digits] [--batch-size B] [--parts train sampler likelihood]
                                       [--config.section.key=value ...]

Every part runs in a process of its own, so that its peak memory is its own: resident memory of the host, and of the
accelerator where the back end tells. Data are random bytes. Printed are seconds until the first result (compilation
included), then milliseconds a training step, a sampler step (one noise level, predictor and corrector, whole batch) and
an evaluation of the likelihood's drift with its vector-Jacobian product.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

PARTS = ("train", "sampler", "likelihood")


def measure(part: str, config_name: str, overrides: dict[str, Any], batch_size: int | None) -> dict[str, float]:
    """One part, in this process."""
    import ast

    import jax
    import numpy as np

    from score_core.jax.noise import PerSampleNoise
    from score_core.jax.training import get_train_call
    from score_sde.configs.load import load_config
    from score_sde.experiment import Experiment

    config = load_config(config_name)
    with config.unlocked(), config.ignore_type():
        for key, text in overrides.items():
            section, name = key.split(".")
            try:
                config[section][name] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                config[section][name] = text
    experiment = Experiment(config)
    batch = batch_size or (config.training if part == "train" else config.eval).batch_size
    images = np.random.default_rng(0).integers(0, 256, (batch, *experiment.image_shape), np.uint8)
    state = experiment.parallel.replicate(experiment.init_state(jax.random.PRNGKey(0)))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    start = time.perf_counter()
    if part == "train":
        n_jit = config.training.n_jitted_steps
        call = get_train_call(experiment.loss_fn, experiment.adam, experiment.prepare)
        batches = experiment.parallel.shard(np.stack([images] * n_jit), axis=1)
        state, loss = jax.block_until_ready(call(state, batches))
        first = time.perf_counter() - start
        calls, start = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - start < 5:
            state, loss = call(state, batches)
            calls += 1
            jax.block_until_ready(loss)
        milliseconds = 1e3 * (time.perf_counter() - start) / (calls * n_jit)
    elif part == "sampler":
        indices = experiment.parallel.shard_range(batch)
        seconds = []
        for seed in range(2):  # the whole loop, compiled and then again
            start = time.perf_counter()
            noise = PerSampleNoise(jax.random.PRNGKey(seed), indices, experiment.image_shape)
            jax.block_until_ready(experiment.sampler(state.params_ema, noise).images)
            seconds.append(time.perf_counter() - start)
        first = seconds[0]
        milliseconds = 1e3 * seconds[1] / config.model.num_scales
    else:
        from score_core.jax.noise import probe

        eps = probe(jax.random.PRNGKey(1), None, images.shape, "Rademacher")
        data = experiment.scale(images)
        jax.block_until_ready(experiment.likelihood(state.params_ema, data, eps).bpd)
        first = time.perf_counter() - start
        start = time.perf_counter()
        result = experiment.likelihood(state.params_ema, data, eps)
        jax.block_until_ready(result.bpd)
        milliseconds = 1e3 * (time.perf_counter() - start) / int(result.nfe)
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "batch": batch,
        "parameters": parameters,
        "first_s": first,
        "ms": milliseconds,
        "host_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device_peak_mb": memory.get("peak_bytes_in_use", 0) / 2**20,
    }


def main() -> None:
    """Runs every part in a process of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--measure", choices=PARTS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    overrides = dict(flag.removeprefix("--config.").split("=", 1) for flag in rest)
    if options.measure:
        print(json.dumps(measure(options.measure, options.config, overrides, options.batch_size)))
        return
    print(f"{options.config} {' '.join(rest)}")
    print("| part | batch | parameters | first result, s | ms per step | peak host MB | peak device MB |")
    print("|---|---|---|---|---|---|---|")
    for part in options.parts:
        command = [sys.executable, __file__, f"--config={options.config}", f"--measure={part}", *rest]
        if options.batch_size:
            command.append(f"--batch-size={options.batch_size}")
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = json.loads(output.splitlines()[-1])
        print(
            f"| {part} | {row['batch']} | {row['parameters']:,} | {row['first_s']:.1f} | {row['ms']:.1f} | "
            f"{row['host_peak_mb']:.0f} | {row['device_peak_mb']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
