"""The README's experiment: the same run with uniform and with debiased times, and their bits/dim in one picture.

    workdir/uniform, workdir/debiased      the two runs (their files: variational_sde.torch.training)
    workdir/figures/bpd.png                both curves with error bars, and their standard errors
    workdir/results.json                   the last state of each, evaluated with more draws; their difference

Both runs have one seed: the same initial network, batches and dequantisation, and in evaluations the same times, noise
and probes, so that the difference of the two is known better than either.
"""

import argparse
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

from score_core.runs.config_record import config_hash
from score_core.runs.figures import save_figure
from score_core.runs.history import read_history
from score_core.runs.results import Result, add_results, read_results
from score_core.runs.signals import GracefulStop
from variational_sde.experiment import config_of, load_data
from variational_sde.figures import Curve, curves_of_bpd
from variational_sde.torch.checkpoint import load_model
from variational_sde.torch.evaluation import Estimate, Protocol, bound_bpd, ode_bpd
from variational_sde.torch.start import choose_device
from variational_sde.torch.training import train

__all__ = ["run"]

_RUNS = {"uniform": False, "debiased": True}


def run(args: argparse.Namespace) -> None:
    """Trains what is missing, evaluates, draws, and says what came out.

    Raises:
        UserError: see its message.
        StopRequested: after a signal; the same command goes on.
    """
    workdir = Path(args.workdir).expanduser()
    study = ("workdir", "final_repeats", "ode", "tolerance")
    for name, debias in _RUNS.items():
        values = {key: value for key, value in vars(args).items() if key not in study}
        train(argparse.Namespace(**values | {"debias": debias}), folder=workdir / name)
    _draw(args, workdir)
    with GracefulStop() as stop:
        bounds, odes = _evaluate(args, workdir, stop)
    _report(args, workdir, bounds, odes)


def _draw(args: argparse.Namespace, workdir: Path) -> None:
    curves = {
        f"debias={debias} ({'non-uniform' if debias else 'uniform'} times)": _curve(workdir / name)
        for name, debias in _RUNS.items()
    }
    last = {name: points[-1] for name, points in curves.items()}
    png = curves_of_bpd(curves, _published() if args.dataset == "cifar" else None, f"{args.dataset}, seed {args.seed}")
    text = "; ".join(f"{name}: {bpd:.3f} +- {error:.3f} at {step}" for name, (step, bpd, error) in last.items())
    save_figure(
        workdir / "figures" / "bpd.png",
        png,
        f"Test bits/dim against the iteration for uniform and debiased times. {text}.",
        f"Test bits/dim of {args.dataset} (the bound, {args.repeats} draws an image) and its standard error.",
    )


def _curve(folder: Path) -> Curve:
    errors = {r.checkpoint_step: r.standard_error for r in read_results(folder / "results.json") if r.metric == "bpd"}
    rows = read_history(folder / "history.csv")
    return [(row.step, row.eval_loss, errors.get(row.step) or 0.0) for row in rows if row.eval_loss is not None]


def _published() -> dict[str, Curve]:
    """The README's curves of CIFAR-10 (they have no error bars before iteration 6000 of debias=False)."""
    record = json.loads(resources.files("variational_sde").joinpath("readme_curves.json").read_text())
    curves: dict[str, Curve] = {}
    for name, flag in (("debias_false", False), ("debias_true", True)):
        errors = dict(map(tuple, record[name]["std_err"]))
        curves[f"debias={flag}"] = [(step, bpd, errors.get(step, math.nan)) for step, bpd in record[name]["bpd"]]
    return curves


def _evaluate(
    args: argparse.Namespace, workdir: Path, stop: GracefulStop
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    device = choose_device(args.device)
    bounds: dict[str, Estimate] = {}
    odes: dict[str, Estimate] = {}
    for name in _RUNS:
        model, content, _ = load_model(workdir / name, device)
        size = content["settings"]["network"]["input_height"]
        source = load_data(args.dataset, "test", size, args.dataroot, args.download)
        protocol = Protocol(bool(args.real), args.test_batch_size, args.seed, args.final_repeats)
        found = bound_bpd(model, source, protocol, stop=lambda: stop.requested)
        ode = (
            ode_bpd(model, source, protocol, tolerance=args.tolerance, stop=lambda: stop.requested)
            if args.ode
            else None
        )
        if stop.requested or found is None:
            stop.exit()
        bounds[name] = found
        if ode is not None:
            odes[name] = ode
    return bounds, odes


def _report(args: argparse.Namespace, workdir: Path, bounds: dict[str, Estimate], odes: dict[str, Estimate]) -> None:
    difference = Estimate(bounds["debiased"].per_image - bounds["uniform"].per_image)
    estimates: dict[str, Estimate] = {f"bits_per_dim_{name}": bound for name, bound in bounds.items()}
    estimates["bits_per_dim_difference"] = difference
    estimates |= {f"ode_bits_per_dim_{name}": ode for name, ode in odes.items()}
    common: dict[str, Any] = {
        "dataset": f"{args.dataset}/test",
        "checkpoint_step": args.num_iterations,
        "config_hash": config_hash(config_of(args)),
        "seed": args.seed,
    }
    results = [
        Result(
            name,
            estimate.mean,
            standard_error=estimate.standard_error,
            sample_count=len(estimate.per_image),
            details={"draws": args.final_repeats} if estimate.nfe is None else {"nfe": estimate.nfe},
            **common,
        )
        for name, estimate in estimates.items()
    ]
    add_results(workdir / "results.json", results)
    for name, estimate in estimates.items():
        print(f"{name}: {estimate.mean:.4f} +- {estimate.standard_error:.4f}")
    print(f"The curves are in {workdir / 'figures' / 'bpd.png'}, every number in {workdir / 'results.json'}.")
