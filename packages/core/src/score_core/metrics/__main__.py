"""The ``score-stats`` command: statistics of image sets, and the scores that compare them.

    score-stats make DATASET|FOLDER|FILE.npz ... --extractor NAME --out FILE.npz
    score-stats show FILE.npz
    score-stats convert IN.npz OUT.npz --to original|ttur|native
    score-stats fid SAMPLES REFERENCE
    score-stats compare SAMPLES --reference REFERENCE ... --extractor NAME ...

SAMPLES and REFERENCE are statistics files or images (a dataset's name, a folder, an .npz file). Exit status: 0; 1 for
data that no score can be computed from; 2 for a wrong command line, missing files or weights, or two extractors.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from score_core.errors import run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    try:
        status = run_main(lambda: _main(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `score-stats show FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 128 + signal.SIGPIPE
    return status


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    getattr(import_module("score_core.metrics.commands"), options.command)(options)
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score-stats",
        description="Statistics of image sets under a feature extractor, and FID, Inception score and KID from them.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    images, written, scored = _image_options(), _written_options(), _scored_options()
    extractor = "digits, inception, inception_ncsnv2, tfgan, ... (an unknown name lists all)"

    make = commands.add_parser(
        "make",
        parents=[images, written],
        help="measure images",
        description="Measure images, each exactly once, as bytes, without flips or noise, into a statistics file.",
    )
    make.add_argument("images", nargs="+", metavar="IMAGES", help="a dataset's name, a folder, or .npz files")
    make.add_argument("--extractor", required=True, metavar="NAME", help=extractor)
    make.add_argument("--out", required=True, type=Path, metavar="FILE.npz")

    show = commands.add_parser("show", help="print what a statistics file of any kind holds")
    show.add_argument("file", type=Path, metavar="FILE.npz")
    show.add_argument("--json", action="store_true", help="as JSON")

    convert = commands.add_parser("convert", parents=[written], help="write a statistics file in another form")
    convert.add_argument("source", type=Path, metavar="IN.npz")
    convert.add_argument("out", type=Path, metavar="OUT.npz")
    convert.add_argument(
        "--to",
        required=True,
        choices=("original", "ttur", "native"),
        help="original: activations, as score_sde reads them; ttur: mean and covariance, as ncsnv2 and pytorch-fid",
    )
    for field in ("dataset", "split", "extractor"):
        convert.add_argument(f"--{field}", metavar="NAME", help=f"the {field}, where the file does not say it")

    fid = commands.add_parser("fid", parents=[images, scored], help="all scores of one set against another")
    fid.add_argument("samples", metavar="SAMPLES", help="statistics file or images")
    fid.add_argument("reference", metavar="REFERENCE", help="statistics file or images")
    fid.add_argument("--extractor", metavar="NAME", help=f"{extractor}; default: that of the statistics file")

    compare = commands.add_parser(
        "compare", parents=[images, scored], help="all scores under several extractors, side by side"
    )
    compare.add_argument("samples", metavar="SAMPLES", help="images, or a statistics file (for its extractor)")
    compare.add_argument(
        "--reference", nargs="+", required=True, metavar="REFERENCE", help="images, or a statistics file an extractor"
    )
    compare.add_argument("--extractor", nargs="+", required=True, metavar="NAME", help=extractor)
    return parser


def _image_options() -> argparse.ArgumentParser:
    """How images are found and measured."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--split", choices=("train", "test"), help="default: train of a dataset, everything in a folder or file"
    )
    options.add_argument(
        "--image-size", type=_count, metavar="PIXELS", help="default: 32 of a dataset, their own in a folder or file"
    )
    options.add_argument("--root", metavar="DIR", help="folder of all datasets (default: $SCORE_DATA, else data)")
    options.add_argument("--path", metavar="PATH", help="the dataset's own folder or file")
    options.add_argument("--category", metavar="NAME", help="part of a dataset that has categories (lsun)")
    options.add_argument("--batch-size", type=_count, default=256, metavar="N", help="images read at a time (256)")
    options.add_argument(
        "--moments-only", action="store_true", help="mean and covariance only: little memory, no IS and no KID"
    )
    options.add_argument("--weights", metavar="PATH", help="the extractor's weights (default: its variable, its cache)")
    options.add_argument("--download", action="store_true", help="fetch missing weights, or a small missing dataset")
    return options


def _written_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return options


def _scored_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--splits", type=_count, default=1, metavar="N", help="of the Inception score (1)")
    options.add_argument("--json", action="store_true", help="as JSON")
    return options


if __name__ == "__main__":
    sys.exit(main())
