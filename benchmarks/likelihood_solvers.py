"""Bits/dim of digits by every likelihood solver: evaluations, differences from RK45, seconds.

    python -m score_sde --config digits --workdir DIR                            (5 to 8 minutes; not done here)
    OMP_NUM_THREADS=1 uv run python benchmarks/likelihood_solvers.py DIR [DIR ...] [--untrained] [--images 48]
        [--wing jax|torch] [--tolerances 2e-3 1e-3 5e-4 1e-4] [--output docs]

Test images with one dequantisation noise and one Rademacher probe each, the same for every solver, and the averaged
parameters of the last checkpoint; ``--untrained`` adds the first folder's network as it is initialised. The reference
is RK45 in time with a tolerance of 1e-6; with 1e-5 it is the published protocol. Writes ``likelihood_solvers.csv``,
``.md`` and ``.png`` into the output folder.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

BATCH = 24


class Row(NamedTuple):
    """One solver on one network; differences are from the reference, in bits/dim; nfe is the mean over batches."""

    network: str
    solver: str
    tolerance: float
    nfe: float
    bpd: float
    mean_difference: float
    largest_difference: float
    seconds: float


def solvers(tolerances: list[float]) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Label, tolerance and options; the reference first."""
    for tolerance in (1e-6, 1e-5, 1e-3):
        yield "RK45", tolerance, {"rtol": tolerance, "atol": tolerance}
    for tolerance in tolerances:
        yield "exponential_rk45", tolerance, {"solver": "exponential_rk45", "tolerance": tolerance}


def estimator(wing: str, experiment: Any, params: Any) -> Callable[..., Any]:
    """``estimate(options) -> likelihood(data, probe)``, NumPy arrays [B, H, W, C] in and out."""
    import numpy as np

    if wing == "jax":
        from score_core.jax.likelihood import get_likelihood_fn

        def of_options(options: dict[str, Any]) -> Callable[..., Any]:
            estimate = get_likelihood_fn(
                experiment.sde, experiment.apply_fn, inverse_scaler=experiment.inverse_scaler, **options
            )
            return lambda data, probe: estimate(params, data, probe)

        return of_options

    import torch

    from score_core.torch import networks
    from score_core.torch.likelihood import get_likelihood_fn as torch_likelihood

    model = networks.create_model(experiment.config, flavor="jax").eval().requires_grad_(False)
    networks.load_flax_tree(model, params)

    def of_torch_options(options: dict[str, Any]) -> Callable[..., Any]:
        estimate = torch_likelihood(
            experiment.sde, lambda _, x, labels: model(x, labels), inverse_scaler=experiment.inverse_scaler, **options
        )
        return lambda *arrays: estimate(None, *(torch.tensor(np.asarray(a)).permute(0, 3, 1, 2) for a in arrays))

    return of_torch_options


def measure(name: str, folder: Path, trained: bool, options: argparse.Namespace) -> Iterator[Row]:
    """All solvers on one network."""
    import jax
    import numpy as np

    from score_core.jax.noise import probe
    from score_sde.configs.load import load_config
    from score_sde.jax_experiment import JaxExperiment as Experiment

    config = load_config("digits")
    config.training.sde = json.loads((folder / "config.json").read_text())["training"]["sde"]
    experiment = Experiment(config)
    last = max((folder / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
    state = experiment.load_state(last) if trained else experiment.init_state(jax.random.PRNGKey(0))
    estimate = estimator(options.wing, experiment, state.params_ema)
    with experiment.pipeline("test", options.images, seed=0).epoch() as epoch:
        images = next(iter(epoch)).image
    noise = np.random.default_rng(0).random(images.shape, np.float32)
    data = np.asarray(experiment.dequantize(images, noise), np.float32)
    probes = np.asarray(probe(jax.random.PRNGKey(1), np.arange(len(data)), data.shape, "Rademacher"))
    reference: np.ndarray | None = None
    for solver, tolerance, settings in solvers(options.tolerances):
        likelihood = estimate(settings)
        batches = [slice(first, first + BATCH) for first in range(0, len(data), BATCH)]
        likelihood(data[batches[0]], probes[batches[0]])  # compilation
        start = time.perf_counter()
        results = [likelihood(data[batch], probes[batch]) for batch in batches]
        bpd = np.concatenate([np.asarray(result.bpd, np.float64) for result in results])
        seconds = time.perf_counter() - start
        reference = bpd if reference is None else reference
        difference = bpd - reference
        nfe = float(np.mean([int(result.nfe) for result in results]))
        yield Row(name, solver, tolerance, nfe, bpd.mean(), difference.mean(), np.abs(difference).max(), seconds)


def table(rows: list[Row]) -> str:
    """The rows as a markdown table."""
    lines = [
        "| network | solver | tolerance | evaluations | bits/dim | mean difference | largest difference | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.solver} | {row.tolerance:g} | {row.nfe:.0f} | {row.bpd:.4f} | "
        f"{row.mean_difference:+.4f} | {row.largest_difference:.4f} | {row.seconds:.1f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Largest difference against evaluations, one panel a network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.network for row in rows))
    figure, panels = pyplot.subplots(
        1, len(names), figsize=(4.2 * len(names), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(panels[0], names, strict=True):
        for solver, style in (("RK45", "s--"), ("exponential_rk45", "o-")):
            points = [row for row in rows if (row.network, row.solver) == (name, solver) and row.largest_difference]
            x, y = ([getattr(row, key) for row in points] for key in ("nfe", "largest_difference"))
            axes.plot(x, y, style, label=solver)
            for row in points:
                text = f"{row.tolerance:g}"
                axes.annotate(
                    text, (row.nfe, row.largest_difference), xytext=(4, 4), textcoords="offset points", size=7
                )
        axes.axhline(0.005, color="grey", lw=0.8, ls=":")
        axes.set(xscale="log", yscale="log", xlabel="network evaluations", title=name)
        axes.set_xticks([50, 100, 200, 500, 1000, 2000], ["50", "100", "200", "500", "1,000", "2,000"])
        axes.set_xlim(40, 2 * max((row.nfe for row in rows if row.largest_difference), default=1000))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("largest difference of an image, bits/dim")
    panels[0][0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, and writes table and numbers after every solver, the picture at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--wing", choices=("jax", "torch"), default="jax")
    parser.add_argument("--tolerances", type=float, nargs="+", default=[2e-3, 1e-3, 5e-4, 1e-4])
    parser.add_argument("--output", type=Path, default=Path("docs"))
    options = parser.parse_args()
    jobs = [(folder.name, folder, True) for folder in options.workdirs]
    if options.untrained:
        jobs.append(("untrained", options.workdirs[0], False))
    rows: list[Row] = []
    for job in jobs:
        for row in measure(*job, options):
            rows.append(row)
            print(table(rows).splitlines()[-1], flush=True)
            write(rows, options.output / "likelihood_solvers.csv")
    plot(rows, options.output / "likelihood_solvers.png")
    print(f"\n{table(rows)}")


def write(rows: list[Row], path: Path) -> None:
    """The rows so far as numbers, table and picture."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(
            [*row[:3], f"{row.nfe:.1f}", *(f"{value:.6f}" for value in row[4:7]), f"{row[7]:.2f}"] for row in rows
        )
    path.with_suffix(".md").write_text(table(rows))


if __name__ == "__main__":
    main()
