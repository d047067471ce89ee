"""``python -m ncsn.toy FIGURE --workdir DIR``: the paper's Figures 1, 2 and 3 computed again, with numbers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from score_core.errors import run_main

__all__ = ["main", "parser"]

_EPILOG = """\
figures (Song and Ermon, arXiv:1907.05600):
  figure1     the loss of sliced score matching of images, without noise and with (embedded photographs, in small)
  figure2     the score of two modes: of the data, estimated, and how wrong where
  figure3     two modes drawn exactly, by Langevin dynamics, and by annealed Langevin dynamics

They write <workdir>/results.json, <workdir>/eval/figure_<n>.png and the single pictures beside it.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ncsn.toy",
        description="The toy experiments of NCSN.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("figure", choices=("figure1", "figure2", "figure3"))
    made.add_argument("--workdir", type=Path, required=True, help="where results and pictures go")
    made.add_argument("--seed", type=int, default=1234, help="of all random numbers (default: 1234)")
    made.add_argument("--steps", type=int, help="training steps (default: figure1 1500, figure2 10000)")
    made.add_argument("--points", type=int, help="points of each cloud in figure3 (default: 5000)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = parser().parse_args(argv)

    def command() -> None:
        from ncsn.toy import figures

        figures.run(args)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
