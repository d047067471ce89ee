"""FID of the ``digits`` run against the number of network evaluations, for every few-step rule.

    python -m score_sde --config digits --workdir DIR --mode train               (5 to 8 minutes; not done here)
    OMP_NUM_THREADS=1 uv run python benchmarks/few_step_digits.py DIR [--evaluations 5 10 20 50] [--samples 1000]
        [--rules ddim ...] [--spacing log_snr] [--output docs]

Draws samples from the averaged parameters of DIR's last checkpoint: with each rule and number of evaluations, with the
original's Euler-Maruyama predictor and with the adaptive ODE sampler. All start from the same noise. FID is the one of
the ``digits`` extractor against the training images, with its jackknife error over samples. Writes
``few_step_digits.csv``, ``.md`` and ``.png`` into the output folder, after every point, and prints seconds.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RULES = ("ddim", "exponential_integrator_2", "dpm_solver_pp_2m", "heun")
EULER_MARUYAMA_STEPS = (50, 200)
RK45_EVALUATIONS = 100  # about; the solver decides
BATCH = 125


class Row(NamedTuple):
    """One point of a curve: at most ``column`` evaluations; ``seconds`` are those of sampling and compilation."""

    sampler: str
    spacing: str
    column: int
    evaluations: int
    fid: float
    error: float
    seconds: float


def settings(options: argparse.Namespace) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Label, number of evaluations aimed at, and changes of the configuration of every point, cheap ones first."""
    from score_core.predictors import get_predictor

    points: list[tuple[str, int, dict[str, Any]]] = []
    for n in options.evaluations:
        for rule in options.rules:
            # a step at every level but the last, where the denoised mean takes one evaluation
            steps = 1 + (n - 1) // get_predictor(rule).nfe_per_step
            points.append((rule, n, {"predictor": rule, "steps": steps, "spacing": options.spacing}))
    if not options.spacing:
        points.append(("ode", RK45_EVALUATIONS, {"method": "ode"}))
        points += [("euler_maruyama", n, {"num_scales": n}) for n in EULER_MARUYAMA_STEPS]
    yield from sorted(points, key=lambda point: point[1])


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Samples and scores every setting."""
    import jax
    import numpy as np

    from score_core.data import to_uint8
    from score_core.jax.noise import PerSampleNoise
    from score_core.metrics import Statistics, compute_metrics, get_extractor
    from score_core.predictors import get_predictor
    from score_sde.configs.load import load_config
    from score_sde.jax_experiment import JaxExperiment as Experiment

    extractor = get_extractor("digits")

    def statistics(images: np.ndarray) -> Statistics:
        header = {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
        return Statistics.from_activations(extractor(images)[0], None, header=header)

    def experiment_of(sampling: dict[str, Any]) -> Experiment:
        config = load_config("digits")
        with config.unlocked():
            for key, value in sampling.items():
                config["model" if key == "num_scales" else "sampling"][key] = value
        return Experiment(config)

    base = experiment_of({})
    checkpoint = max((options.workdir / "checkpoints").glob("checkpoint_*"), key=lambda p: int(p.name.split("_")[1]))
    params = base.load_state(checkpoint).params_ema
    with base.pipeline("train", 200, seed=0).epoch() as epoch:
        reference = statistics(np.concatenate([batch.image[batch.valid] for batch in epoch]))
    for label, aim, sampling in settings(options):
        sampler = experiment_of(sampling).sampler
        start, images, nfe = time.perf_counter(), [], []
        for first in range(0, options.samples, BATCH):
            noise = PerSampleNoise(jax.random.PRNGKey(0), np.arange(first, first + BATCH), base.image_shape)
            drawn = sampler(params, noise)
            images.append(to_uint8(np.asarray(drawn.images)))
            nfe.append(int(drawn.nfe))
        seconds = time.perf_counter() - start
        scores = compute_metrics(statistics(np.concatenate(images)[: options.samples]), reference)
        # the original counts a corrector's evaluations even where there is none
        evaluations = aim if label == "euler_maruyama" else round(sum(nfe) / len(nfe))
        spacing = options.spacing or getattr(get_predictor(sampling.get("predictor", "none")), "spacing", "")
        column = evaluations if label == "ode" else aim
        yield Row(label, spacing, column, evaluations, scores["fid"], scores["fid_se"], seconds)


def table(rows: list[Row]) -> str:
    """The rows as a markdown table, one column a number of evaluations."""
    counts = sorted({row.column for row in rows})
    lines = [f"| FID with at most ... evaluations | {' | '.join(map(str, counts))} |", "|---" * (len(counts) + 1) + "|"]
    for name in dict.fromkeys(row.sampler for row in rows):
        cells = {row.column: f"{row.fid:.1f} ± {row.error:.1f}" for row in rows if row.sampler == name}
        lines.append(f"| {name} | {' | '.join(cells.get(count, '') for count in counts)} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """FID against evaluations, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name in dict.fromkeys(row.sampler for row in rows):
        points = [row for row in rows if row.sampler == name]
        x, y, error = ([getattr(row, key) for row in points] for key in ("evaluations", "fid", "error"))
        style = "o-" if len(points) > 1 and name in RULES else "s--"
        spacing = f" ({points[0].spacing})" if points[0].spacing else ""
        axes.errorbar(x, y, error, fmt=style, capsize=2, label=name + spacing)
    counts = sorted({row.column for row in rows})
    axes.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel="FID, extractor digits, 1,000 samples")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, and writes table, numbers and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--evaluations", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--spacing", default="", help="of every rule; without it, each rule's own")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    options = parser.parse_args()
    start, rows = time.perf_counter(), []
    for row in measure(options):
        rows.append(row)
        print(
            f"{row.sampler:25}{row.evaluations:4d}: FID {row.fid:6.2f} ± {row.error:.2f}, {row.seconds:.1f} s",
            flush=True,
        )
        write(rows, options.output / "few_step_digits.csv")
    print(f"\n{table(rows)}\n{time.perf_counter() - start:.0f} s altogether")


def write(rows: list[Row], path: Path) -> None:
    """The rows so far as numbers, table and picture."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([*row[:4], f"{row.fid:.4f}", f"{row.error:.4f}", f"{row.seconds:.2f}"] for row in rows)
    path.with_suffix(".md").write_text(table(rows))
    plot(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
