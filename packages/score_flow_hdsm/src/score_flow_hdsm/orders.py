"""Orders 1, 2 and 3 compared on images: one first-order run, continued with each order, bits/dim by ODE and by bound.

python -m score_flow_hdsm.orders [--workdir=DIR] [--config=NAME] [--first=N] [--more=N] [--set KEY=VALUE ...]

    DIR/first/                      order 1 for `first` updates
    DIR/order{1,2,3}/               continued for `more` updates with that order, as the paper does
    DIR/results.json                bpd_order{k}, bpd_bound_order{k}, and their paired differences to order 1
    DIR/figures/orders.png, orders.csv  the same, drawn and as a table

Test images, their dequantisation noise, probes and the bound's draws are the same for all orders, so the differences
have far smaller errors than the numbers. Everything resumes: the same command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_core.errors import run_main

__all__ = ["compare", "main"]

_ORDERS = (1, 2, 3)
_KINDS = {"bpd": "eval_ode", "bpd_bound": "eval_bound"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser("python -m score_flow_hdsm.orders", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs", "score_flow_hdsm", "orders"))
    parser.add_argument("--config", default="digits", help="packaged experiment or file; default: digits")
    parser.add_argument("--first", type=int, default=1000, help="updates of order 1; default 1000")
    parser.add_argument("--more", type=int, default=500, help="updates of each order after that; default 500")
    parser.add_argument("--bound_times", type=int, default=100, help="times drawn for an image by the bound")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change keys, such as training.batch_size=32",
    )
    arguments = parser.parse_args(argv)
    return run_main(lambda: compare(**vars(arguments)))


@dataclass(frozen=True)
class _Measured:
    """Bits/dim of every test image (mean over its repeats), in the order of their numbers."""

    index: Any
    bpd: Any


def compare(workdir: Path, config: str, first: int, more: int, bound_times: int, overrides: Sequence[str] = ()) -> None:
    """The whole comparison; see the module's text.

    Raises:
        UserError: as training and evaluation do.
    """
    from score_core.checkpoints.store import find_checkpoint
    from score_flow_hdsm.continuation import start_from
    from score_flow_hdsm.experiment import experiment_maker
    from score_sde.evaluate import evaluate
    from score_sde.train import train

    def settings(n_iters: int, **changes: Any) -> Any:
        return _configured(
            config, [*overrides, f"training.n_iters={n_iters}", f"training.snapshot_freq={n_iters}"], changes
        )

    make = experiment_maker(workdir, "flowpp_dequantizer")
    train(settings(first), workdir / "first", make_experiment=make)
    total = first + more
    begin = find_checkpoint(workdir / "first" / "checkpoints", 1)
    for order in _ORDERS:
        folder = workdir / f"order{order}"
        own = settings(total, training__score_matching_order=order)
        start_from(make(own, "jax"), begin, folder)
        train(own, folder, make_experiment=make)
        for kind, name in _KINDS.items():
            changes = {"eval__bound": kind == "bpd_bound", "eval__bound_times": bound_times}
            own = settings(total, training__score_matching_order=order, **changes)
            evaluate(own, folder, name, make_experiment=make)
    measured = {(order, kind): _measured(workdir, order, kind) for order in _ORDERS for kind in _KINDS}
    _record(workdir, measured, total)
    _draw(workdir, measured)


def _configured(name: str, overrides: Sequence[str], changes: dict[str, Any]) -> Any:
    """A complete configuration with overrides ``section.key=value``, as the command line has them."""
    from absl import flags

    from score_flow_hdsm.configs._house import load_config
    from score_sde.configs.load import define_config_flag

    flat = [f"--config.{item}" for item in overrides]
    flat += [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    fixed = ["--config.eval.begin_ckpt=1", "--config.eval.end_ckpt=1", "--config.eval.enable_sampling=False"]
    values = flags.FlagValues()
    program = ["orders", f"--config={name}", *fixed, *flat]
    holder = define_config_flag(flag_values=values, sys_argv=program, load=load_config)
    values(program)
    return holder.value


def _measured(workdir: Path, order: int, kind: str) -> _Measured:
    import numpy as np

    from score_sde.evaluation_files import load_npz

    folder = workdir / f"order{order}" / _KINDS[kind]
    parts = [load_npz(file, "arr_0", "index") for file in sorted(folder.glob("*_bpd_*.npz"))]
    index = np.concatenate([part["index"] for part in parts])
    bpd = np.concatenate([part["arr_0"] for part in parts]).astype(np.float64)
    images, place = np.unique(index, return_inverse=True)
    return _Measured(images, np.bincount(place, weights=bpd) / np.bincount(place))


def _record(workdir: Path, measured: dict[tuple[int, str], _Measured], step: int) -> None:
    from score_core.checkpoints.atomic import atomic_write
    from score_core.runs.results import Result, add_results
    from score_sde.evaluation_files import standard_error

    rows, results = ["order,metric,mean,standard_error,difference_to_order_1,its_standard_error"], []
    for (order, kind), values in measured.items():
        difference = values.bpd - measured[1, kind].bpd
        numbers = (values.bpd.mean(), standard_error(values.bpd), difference.mean(), standard_error(difference))
        rows.append(",".join([str(order), kind, *(f"{number:.6f}" for number in numbers)]))
        print(f"order {order} {kind}: {numbers[0]:.4f} +- {numbers[1]:.4f}, minus order 1: {numbers[2]:+.4f} "
              f"+- {numbers[3]:.4f}")  # fmt: skip
        shared = {"sample_count": len(values.index), "checkpoint_step": step, "framework": "jax", "ema": True}
        results.append(Result(f"{kind}_order{order}", float(numbers[0]), float(numbers[1]), **shared))
        if order > 1:
            name = f"{kind}_order{order}_minus_order1"
            results.append(Result(name, float(numbers[2]), float(numbers[3]), **shared))
    atomic_write(workdir / "orders.csv", ("\n".join(rows) + "\n").encode())
    add_results(workdir / "results.json", results)


def _draw(workdir: Path, measured: dict[tuple[int, str], _Measured]) -> None:
    from matplotlib.figure import Figure

    from score_core.runs.figures import png_of, save_figure
    from score_sde.evaluation_files import standard_error

    figure = Figure(figsize=(8, 3.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for shift, (kind, label) in enumerate({"bpd": "ODE", "bpd_bound": "bound"}.items()):
        x = [order + 0.12 * (shift - 0.5) for order in _ORDERS]
        means = [measured[order, kind].bpd.mean() for order in _ORDERS]
        errors = [standard_error(measured[order, kind].bpd) for order in _ORDERS]
        left.errorbar(x, means, errors, fmt="o", capsize=3, label=label)
        gaps = [measured[order, kind].bpd - measured[1, kind].bpd for order in _ORDERS]
        right.errorbar(x, [g.mean() for g in gaps], [standard_error(g) for g in gaps], fmt="o", capsize=3, label=label)
    right.axhline(0, color="0.7", linewidth=0.8)
    left.set_ylabel("bits/dim of the test images")
    right.set_ylabel("minus order 1, paired")
    for axis in (left, right):
        axis.set_xticks(_ORDERS)
        axis.set_xlabel("order of score matching")
        axis.legend(frameon=False)
    save_figure(
        workdir / "figures" / "orders.png",
        png_of(figure),
        "Bits/dim by order of score matching, and the paired differences to order 1, each by the ODE and by the bound.",
        "Left: bits/dim of the test images by the ODE and by the bound, with their standard errors over images. Right: "
        "differences to order 1 on the same images with the same noise.",
    )


if __name__ == "__main__":
    sys.exit(main())
