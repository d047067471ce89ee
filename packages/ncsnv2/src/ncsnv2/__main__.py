"""``python -m ncsnv2``: train NCSNv2, draw samples, evaluate checkpoints; the original's command line."""

import argparse
import sys
from collections.abc import Callable, Sequence

from score_core.errors import run_main

__all__ = ["main", "parser"]

_EPILOG = """\
modes (the first given wins): --test, --sample, --fast_fid; without one of them: training

further programs:
  python -m ncsnv2.techniques DATA       noise levels and step size for a dataset (techniques 1 to 5 of the paper)
  python -m ncsnv2.nearest_neighbours    the training images most like samples
  python -m ncsnv2.fid_score A B         FID between folders of images or statistics files

exit status: 0 done, 1 a run failed, 2 wrong usage or missing data, 130/143 stopped by Ctrl-C/SIGTERM after saving
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ncsnv2",
        description="Improved Techniques for Training Score-Based Generative Models (Song and Ermon, NeurIPS 2020).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--config", required=True, help="a packaged configuration (cifar10.yml, digits.yml, ...) or a path"
    )
    made.add_argument("--seed", type=int, help="seed of all random numbers (default: 1234, or that of a resumed run)")
    made.add_argument("--exp", default="exp", help="root of everything read or written (default: exp)")
    made.add_argument("--doc", required=True, help="name of the run; its log folder is <exp>/logs/<doc>")
    made.add_argument("--comment", default="", help="a note for the log")
    made.add_argument("--verbose", default="info", help="debug, info, warning, error or critical (default: info)")
    made.add_argument("--test", action="store_true", help="test loss of a range of checkpoints (section test)")
    made.add_argument("--sample", action="store_true", help="draw samples (section sampling)")
    made.add_argument("--fast_fid", action="store_true", help="FID of a range of checkpoints (section fast_fid)")
    made.add_argument("--resume_training", action="store_true", help="go on from the newest checkpoint of the run")
    made.add_argument("-i", "--image_folder", default="images", help="sub-folder for images (default: images)")
    made.add_argument("--ni", action="store_true", help="ask nothing: overwrite a run or samples, keep FID samples")
    return made


def main(argv: Sequence[str] | None = None, ask: Callable[[str], str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = parser().parse_args(argv)

    def command() -> None:
        from ncsnv2.start import run

        run(args, ask)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
