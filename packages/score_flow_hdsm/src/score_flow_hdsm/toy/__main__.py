"""``python -m score_flow_hdsm.toy``: train, evaluate, study."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.errors import run_main

_DESCRIPTION = """The toy study of high-order denoising score matching (Lu et al. 2022), seeded, on a CPU.

  train   trains one model; resumes by itself                     python -m score_flow_hdsm.toy train --data mog
  eval    its NLL, the distances of its scores, pictures          python -m score_flow_hdsm.toy eval --data mog
  study   every order with several seeds, compared, one figure    python -m score_flow_hdsm.toy study --data mog
"""
_STUDY = {"n_iters": 1500, "batch_size": 500, "viz_freq": 250, "ema_start": 100, "grid": 100, "eval_batch": 1000}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m score_flow_hdsm.toy", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("train", "eval", "study"))
    parser.add_argument("--data", default="checkerboard", help="mog, point, checkerboard or swissroll")
    parser.add_argument("--dim", type=int, default=0, help="dimensions of mog; default 1 (the others have their own)")
    parser.add_argument("--sde", default="VE", help="VE or VP")
    parser.add_argument(
        "--method",
        default="score_eps",
        help="score (order 1, unweighted), score_eps (order 1), score_eps_second (trace), score_eps_second_jac, "
        "score_eps_third",
    )
    parser.add_argument("--importance", action="store_true", help="VP: draw times by their importance")
    parser.add_argument("--score_lambda", type=float, help="weight of the second order; default 0.5")
    parser.add_argument("--third_score_lambda", type=float, help="weight of the third order; default 0.1")
    for name, text in (
        ("n_iters", "updates"),
        ("batch_size", "points an update"),
        ("log_freq", "updates between log lines"),
        ("viz_freq", "updates between evaluations"),
        ("ema_start", "updates before the moving average begins"),
        ("eval_batch", "points of an evaluation"),
        ("grid", "points of a plotted density along an axis"),
        ("pos_dim", "length of the time embedding"),
        ("seed", "of everything"),
    ):
        parser.add_argument(f"--{name}", type=int, help=text)
    for name in ("encoder_layers", "decoder_layers"):
        parser.add_argument(f"--{name}", type=int, nargs="+", help="hidden widths")
    parser.add_argument("--workdir", type=Path, help="default: the original's name below experiments/")
    parser.add_argument("--final", action="store_true", help="eval: the last checkpoint instead of the best")
    parser.add_argument("--times", type=int, default=5, help="eval: repetitions")
    parser.add_argument(
        "--methods", nargs="+", default=["score_eps", "score_eps_second_jac", "score_eps_third"], help="study: which"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="study: which")
    parser.add_argument("--test_points", type=int, default=5000, help="study: size of the test set")
    parser.add_argument("--force", action="store_true", help="go on although the settings differ from the folder's")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return run_main(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from score_flow_hdsm.toy.settings import ToySettings

    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in ToySettings.__dataclass_fields__ and value is not None
    }
    values["reweighted"] = not arguments.importance
    if arguments.command == "study":
        small = {"encoder_layers": (64, 64), "decoder_layers": (128, 128), "pos_dim": 32}
        defaults: dict[str, Any] = {**_STUDY, **small}
        settings = ToySettings(**defaults | values)
        from score_flow_hdsm.toy.study import study

        folder = arguments.workdir or Path("experiments", f"study_{settings.data}_{settings.sde}")
        study(settings, arguments.methods, arguments.seeds, folder, test_points=arguments.test_points)
        return
    settings = ToySettings(**values)
    folder = arguments.workdir or settings.folder
    if arguments.command == "train":
        from score_flow_hdsm.toy.train import train

        train(settings, folder, force=arguments.force)
        return
    _evaluate(settings, folder, arguments)


def _evaluate(settings: Any, folder: Path, arguments: argparse.Namespace) -> None:
    from score_core.runs.log import RunLog
    from score_flow_hdsm.toy import evaluate, plots
    from score_flow_hdsm.toy.study import reopen

    run, times = reopen(settings, folder, final=arguments.final), arguments.times
    logger = logging.getLogger(__name__)
    one_mixture = settings.data == "mog" and settings.dim == 1
    measure, names = (
        (evaluate.eval_fisher, evaluate.FISHER) if one_mixture else (evaluate.eval_scorenet, evaluate.SCORENET)
    )
    with RunLog(None), run.ema.applied():
        for t in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0) if settings.dim <= 2 else ():
            values = measure(run, t, times, settings.eval_batch)
            logger.info("t: %.1f %s", t, ", ".join(f"{n}: {v:.5e}" for n, v in zip(names, values, strict=True)))
        logger.info("nll: %.5e", evaluate.eval_likelihood(run, times, settings.eval_batch))
        plots.visualize(run, folder, 0)
        if one_mixture:
            plots.score_plot(run, folder / "0_score.jpg")


if __name__ == "__main__":
    sys.exit(main())
