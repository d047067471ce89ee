"""``python -m variational_sde``: the original's command line, and further commands under a name."""

import sys
from collections.abc import Callable, Sequence

from score_core.errors import run_main
from variational_sde import flags

_ABOUT = """A Variational Perspective on Diffusion-Based Generative Models and Score Matching
(Huang, Lim and Courville, NeurIPS 2021).

Without a command: trains, resuming by itself when the same command is given again.

further commands (each with --help):
  eval       bits/dim of a checkpoint: the bound with its standard error, the ODE's likelihood
  sample     samples of a checkpoint, for any lambda <= 1
  swissroll  the Swissroll study: training, bound, densities, trajectories of the lambda family
  debias     both settings of --debias on one data set, and their curves in one picture

exit codes: 0 done, 1 failed, 2 wrong flag or missing data, 130/143 stopped by Ctrl-C/SIGTERM (everything is saved)"""

PROG = "python -m variational_sde"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "eval": _evaluate,
        "sample": _sample,
        "swissroll": _swissroll,
        "debias": _debias,
    }
    if arguments and arguments[0] in commands:
        return run_main(lambda: commands[arguments[0]](arguments[1:]))
    return run_main(lambda: _train(arguments))


def _train(arguments: list[str]) -> None:
    args = flags.training_parser(PROG, _ABOUT).parse_args(arguments)
    from variational_sde.torch.training import train

    train(args)


def _evaluate(arguments: list[str]) -> None:
    args = flags.evaluation_parser(f"{PROG} eval", "Bits/dim of a checkpoint on the test images.").parse_args(arguments)
    from variational_sde.torch.commands import evaluate

    evaluate(args)


def _sample(arguments: list[str]) -> None:
    args = flags.sampling_parser(f"{PROG} sample", "Samples of a checkpoint.").parse_args(arguments)
    from variational_sde.torch.commands import sample

    sample(args)


def _swissroll(arguments: list[str]) -> None:
    from variational_sde.swissroll import parser

    args = parser(f"{PROG} swissroll").parse_args(arguments)
    from variational_sde.torch.swissroll_study import run

    run(args)


def _debias(arguments: list[str]) -> None:
    args = flags.debias_parser(f"{PROG} debias", arguments).parse_args(arguments)
    from variational_sde.torch.debias_study import run

    run(args)


if __name__ == "__main__":
    sys.exit(main())
