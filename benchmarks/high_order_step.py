"""Time and memory of a training step by order of score matching, with and without rematerialisation.

python benchmarks/high_order_step.py [--framework jax|torch] [--size 16] [--nf 32] [--batch 16] [--steps 5]
python benchmarks/high_order_step.py --compile_only --size 32 --nf 32 --batch 64

Each case runs in a process of its own. In PyTorch, memory is what the process holds at most above what it held before
the first step (host memory on a CPU). In JAX that would be the compiler's own, so two other figures stand for it: what
JAX keeps from the forward pass for the gradient, and the temporaries of the compiled step. Compilers for CPUs undo
rematerialisation (they see the same value computed twice), those for accelerators do not: the first figure is theirs.
--compile_only: both, of a step that never runs, and so of any size.
"""

import argparse
import json
import os
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
    parser.add_argument("--compile_only", action="store_true", help="JAX: memory by the compiler, nothing runs")
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
        from score_flow_hdsm import losses

        def within_the_backward_pass(score_fn, params, x, v):
            """The recomputing third order keeps its inputs only; this is what it then goes backwards over."""
            score, jvp, slope = losses.terms_along(lambda x: score_fn(params, x), x, v, v)
            return score, jvp, slope * jax.numpy.ones_like(x)

        def kept(params, key, x):
            """What the forward pass hands to the backward pass."""
            return jax.vjp(lambda params: experiment.loss_fn(params, key, x, True)[:, 0].mean(), params)[1]

        x = jax.ShapeDtypeStruct((options.batch, *experiment.image_shape), np.float32)
        entry = losses.recomputed_terms
        losses.recomputed_terms = within_the_backward_pass
        residuals = jax.tree.leaves(jax.eval_shape(kept, state.params, state.rng, x))
        losses.recomputed_terms = entry
        facts["kept_mb"] = sum(leaf.size * leaf.dtype.itemsize for leaf in residuals) / 2**20
        begin = time.perf_counter()
        update = jax.jit(get_update_fn(experiment.loss_fn, experiment.adam, experiment.prepare))
        compiled = update.lower((state.rng, state), batches[0]).compile()
        facts["compile_s"] = time.perf_counter() - begin
        facts["temporaries_mb"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        if options.compile_only:
            return facts
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
    facts["step_s"] = min(seconds)
    return facts if options.framework == "jax" else facts | {"peak_above_start_mb": peak_megabytes() - before}


def main():
    options = parse()
    if options.compile_only:  # the generated code's quality has no part in what it holds
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    if options.case:
        order, remat = json.loads(options.case)
        print(json.dumps(measure(options, order, remat)))
        return
    first = None
    print(f"{options.framework}, {options.size} pixels, nf {options.nf}, batch {options.batch}")
    for case in CASES[options.framework]:
        command = [sys.executable, __file__, *sys.argv[1:], "--case", json.dumps(case)]
        facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        first = first or facts
        line = f"order {facts['order']}{', recomputing' if facts['remat'] else '':13}"
        for name, value in facts.items():
            if name.endswith(("_s", "_mb")):
                unit = {"s": "s", "mb": "MB"}[name.rpartition("_")[2]]
                line += f" | {name.rpartition('_')[0].replace('_', ' ')} {value:.3f} {unit} ({value / first[name]:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
