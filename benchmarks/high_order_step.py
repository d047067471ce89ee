"""Time and memory of a training step by order of score matching, with and without rematerialisation.

python benchmarks/high_order_step.py [--framework jax|torch] [--size 16] [--nf 32] [--batch 16] [--steps 5]

Each case runs in a process of its own, so that its peak memory is its own. Memory is what the process holds at most
above what it held before the first step (host memory on a CPU); in JAX the compiler's own figure for temporaries is
printed as well.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

CASES = {
    "jax": [(1, False), (2, False), (3, False), (1, True), (2, True), (3, True)],
    # PyTorch cannot recompute what is differentiated forwards.
    "torch": [(1, False), (2, False), (3, False), (1, True)],
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--framework", choices=("jax", "torch"), default="jax")
    parser.add_argument("--size", type=int, default=16, help="pixels along a side")
    parser.add_argument("--nf", type=int, default=32, help="width of the network")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser.parse_args()


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def configured(options, order, remat):
    from score_flow_hdsm.configs._house import load_config

    config = load_config("vp/cifar10_ddpmpp_continuous")
    with config.unlocked():
        config.data.update({"image_size": options.size, "dataset": "photos"})
        config.model.update({"nf": options.nf, "ch_mult": (1, 2), "num_res_blocks": 2, "attn_resolutions": (8,)})
        config.training.update({"score_matching_order": order, "batch_size": options.batch})
        config.training["remat" if options.framework == "jax" else "checkpoint_activations"] = remat
    return config


def measure(options, order, remat):
    import numpy as np

    from score_flow_hdsm.experiment import experiment_maker

    experiment = experiment_maker(None, "")(configured(options, order, remat), options.framework)
    images = np.random.default_rng(0).integers(0, 256, (1, options.batch, *experiment.image_shape), np.uint8)
    state, batches = experiment.initial_state(), experiment.to_device(images)
    before, begin = peak_megabytes(), time.perf_counter()
    facts = {"order": order, "remat": remat}
    if options.framework == "jax":
        import jax

        from score_core.jax.training import get_update_fn

        update = jax.jit(get_update_fn(experiment.loss_fn, experiment.adam, experiment.prepare))
        compiled = update.lower((state.rng, state), batches[0]).compile()
        facts["compile_s"] = time.perf_counter() - begin
        facts["temporaries_mb"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        carry = (state.rng, state)

        def step():
            nonlocal carry
            carry, loss = compiled(carry, batches[0])
            return float(loss[0])
    else:

        def step():
            nonlocal state
            state, losses = experiment.train_call(state, batches)
            return float(losses[0, 0])

    step()
    seconds = []
    for _ in range(options.steps):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return facts | {"step_s": min(seconds), "peak_above_start_mb": peak_megabytes() - before}


def main():
    options = parse()
    if options.case:
        order, remat = json.loads(options.case)
        print(json.dumps(measure(options, order, remat)))
        return
    first = None
    print(f"{options.framework}, {options.size} pixels, nf {options.nf}, batch {options.batch}")
    print(f"{'order':>5} {'remat':>5} {'step':>9} {'ratio':>6} {'peak MB':>8} {'ratio':>6} {'temporaries MB':>15}")
    for case in CASES[options.framework]:
        command = [sys.executable, __file__, *sys.argv[1:], "--case", json.dumps(case)]
        facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        first = first or facts
        step, peak = (facts[name] / first[name] for name in ("step_s", "peak_above_start_mb"))
        print(
            f"{facts['order']:>5} {facts['remat']!s:>5} {facts['step_s']:>8.3f}s {step:>6.2f} "
            f"{facts['peak_above_start_mb']:>8.0f} {peak:>6.2f} {facts.get('temporaries_mb', float('nan')):>15.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
