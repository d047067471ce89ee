"""``python -m ncsn``: train NCSN and its companions, draw samples, complete images, evaluate; the original's flags."""

import argparse
import sys
from collections.abc import Sequence

from score_core.errors import run_main

__all__ = ["main", "parser"]

_EPILOG = """\
without --test and --fid: training. Packaged configurations: anneal, anneal_cifar10, anneal_celeba, anneal_svhn,
baseline, baseline_cifar10, baseline_celeba, scorenet, scorenet_mnist, toy; with data that come along: digits, photos,
baseline_digits, scorenet_photos.

further program:
  python -m ncsn.toy {figure1,figure2,figure3} --workdir DIR     the paper's figures in the plane, with numbers

exit status: 0 done, 1 a run failed, 2 wrong usage or missing data, 130/143 stopped by Ctrl-C/SIGTERM after saving
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ncsn",
        description="Generative Modeling by Estimating Gradients of the Data Distribution (Song and Ermon, 2019).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--runner", default="AnnealRunner", help="AnnealRunner (default), BaselineRunner, ScoreNetRunner or ToyRunner"
    )
    made.add_argument(
        "--config", help="a packaged configuration or a path (default: anneal.yml; resuming and --test: the run's own)"
    )
    made.add_argument("--seed", type=int, help="seed of all random numbers (default: 1234, or that of a resumed run)")
    made.add_argument("--run", default="run", help="root of logs, curves and data (default: run)")
    made.add_argument("--doc", default="0", help="name of the run; its log folder is <run>/logs/<doc> (default: 0)")
    made.add_argument("--comment", default="", help="a note for the log")
    made.add_argument("--verbose", default="info", help="debug, info, warning, error or critical (default: info)")
    made.add_argument("--test", action="store_true", help="draw samples from a run (or complete images, with --mask)")
    made.add_argument("--resume_training", action="store_true", help="go on from the newest checkpoint of the run")
    made.add_argument("-o", "--image_folder", default="images", help="folder for samples (default: images)")
    made.add_argument("--overwrite", action="store_true", help="remove the run that the log folder holds")
    made.add_argument("--auto_resume", action="store_true", help="go on if the log folder holds a run, else begin one")
    made.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="change a key, repeatable")
    made.add_argument("--ckpt_id", type=int, metavar="STEP", help="sample from checkpoint_<STEP>.pth (default: latest)")
    made.add_argument("--num_samples", type=int, metavar="N", help="how many samples (default: 25, BaselineRunner 100)")
    made.add_argument("--movie", action="store_true", help="write every step of the sampler, and a film")
    made.add_argument(
        "--mask",
        metavar="HIDDEN",
        help="complete images: right, left, top, bottom, center, or a picture (white: hidden)",
    )
    made.add_argument("--fid", action="store_true", help="choose a checkpoint by FID, evaluate it (section evaluation)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = parser().parse_args(argv)

    def command() -> None:
        from ncsn.start import run

        run(args)

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
