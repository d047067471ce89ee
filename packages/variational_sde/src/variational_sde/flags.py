"""The command line: the original's flags with its names, defaults and order, then what this program adds.

Nothing heavy is imported, so that ``--help`` answers at once.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "ORIGINAL",
    "boolean",
    "count",
    "debias_parser",
    "evaluation_parser",
    "lambda_value",
    "positive",
    "sampling_parser",
    "training_parser",
    "whole",
]

ORIGINAL = (
    "dataset",
    "dataroot",
    "saveroot",
    "expname",
    "print_every",
    "sample_every",
    "checkpoint_every",
    "num_steps",
    "T0",
    "vtype",
    "batch_size",
    "test_batch_size",
    "lr",
    "num_iterations",
    "real",
    "debias",
)
"""The original's flags, in the order in which it writes them into ``args.txt``."""

_BOOLEANS = {"True": True, "False": False, "true": True, "false": False, "1": 1, "0": 0}


def boolean(text: str) -> bool | int:
    """``True`` or ``False`` of these words; ``1`` and ``0`` stay numbers, as in the original's folder names."""
    if text not in _BOOLEANS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _BOOLEANS[text]


def _number(kind: type, fits: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


count = _number(int, lambda value: value >= 1, "a whole number, 1 or more")
whole = _number(int, lambda value: value >= 0, "a whole number, 0 or more")
positive = _number(float, lambda value: value > 0, "a number above 0")
lambda_value = _number(float, lambda value: value <= 1, "a number up to 1")
fraction = _number(float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def numbers(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(",") if part.strip())


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def training_parser(prog: str = "python -m variational_sde", description: str = "") -> argparse.ArgumentParser:
    """The parser of training."""
    parser = argparse.ArgumentParser(prog, description=description, formatter_class=_Help)
    add_training_flags(parser)
    return parser


def add_training_flags(parser: argparse.ArgumentParser, defaults: dict[str, Any] | None = None) -> None:
    """Adds every flag of training; ``defaults`` replaces some of their values."""
    _add_original_flags(parser)
    _add_own_flags(parser)
    _add_network_flags(parser)
    parser.set_defaults(**(defaults or {}))


def _add_original_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--dataset",
        default="mnist",
        choices=["mnist", "cifar", "digits", "photos"],
        help="data set, and with it the network; digits and photos come with scikit-learn",
    )
    group.add_argument(
        "--dataroot", default="~/.datasets", help="folder of the data sets, MNIST/raw or cifar10 below it"
    )
    group.add_argument("--saveroot", default="~/.saved", help="root of all output")
    group.add_argument("--expname", default="default", help="one folder level of the output path")
    group.add_argument("--print_every", type=count, default=500, help="iterations between evaluations of the test set")
    group.add_argument("--sample_every", type=count, default=500, help="iterations between sample grids")
    group.add_argument("--checkpoint_every", type=count, default=1000, help="iterations between checkpoints")
    group.add_argument("--num_steps", type=count, default=1000, help="Euler-Maruyama steps of a sample grid")
    group = parser.add_argument_group("optimisation")
    group.add_argument("--T0", type=positive, default=1.0, help="end time T of the SDE")
    group.add_argument("--vtype", default="rademacher", choices=["rademacher", "gaussian"], help="Hutchinson probe")
    group.add_argument("--batch_size", type=count, default=64, help="images of a training batch")
    group.add_argument("--test_batch_size", type=count, default=256, help="images of an evaluation batch")
    group.add_argument("--lr", type=positive, default=0.0001, help="Adam's step size")
    group.add_argument("--num_iterations", type=count, default=10000, help="updates, from the very first start on")
    group = parser.add_argument_group("model")
    group.add_argument("--real", type=boolean, default=True, help="logit-transform the data to the real line")
    group.add_argument("--debias", type=boolean, default=False, help="debiased time sampling in the loss")


def _add_own_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("not in the original")
    group.add_argument("--seed", type=whole, default=0, help="of initialisation, data order and noise")
    group.add_argument("--device", default="auto", help="auto (CUDA if there is one), cpu, cuda, cuda:1, ...")
    group.add_argument("--download", type=boolean, default=False, help="fetch mnist or cifar into dataroot if missing")
    group.add_argument(
        "--protocol",
        default="complete",
        choices=["complete", "original"],
        help="complete: test images as they are, one noise stream an image; original: flipped at random (cifar), "
        "noise by the batch",
    )
    group.add_argument("--repeats", type=count, default=1, help="draws of time and noise an image in an evaluation")
    group.add_argument("--ema_rate", type=fraction, default=0.0, help="moving average of the parameters; 0: none")
    group.add_argument("--exact_times", type=boolean, default=False, help="debiased times exactly, not in float32")
    group.add_argument("--lmbd", type=lambda_value, default=0.0, help="lambda of the sample grids")
    group.add_argument("--final_checkpoint", type=boolean, default=True, help="save after the last iteration, too")
    group.add_argument(
        "--original_checkpoint",
        type=boolean,
        default=False,
        help="write checkpoint_original.pt beside every checkpoint.pt, in the original's pickled form",
    )
    group.add_argument("--force", action="store_true", help="go on although the folder was started otherwise")


def _add_network_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network and SDE (default: the data set's own)")
    group.add_argument("--image_size", type=count, help="pixels; digits and photos are made in any size")
    group.add_argument("--ch", type=count, help="width of the first level")
    group.add_argument("--ch_mult", type=numbers, help="widths of the levels over ch, such as 1,2,2")
    group.add_argument("--num_res_blocks", type=whole, help="residual blocks a level")
    group.add_argument("--attn_resolutions", type=numbers, help="heights with attention, such as 16,8")
    group.add_argument("--dropout", type=fraction, default=0.0, help="channel-wise dropout")
    group.add_argument("--beta_min", type=positive, default=0.1, help="beta at time 0")
    group.add_argument("--beta_max", type=positive, default=20.0, help="beta at time 1")


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which trained model is meant."""
    parser.add_argument("checkpoint", help="folder of a run, or a checkpoint file (this program's or the original's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--seed", type=whole, default=0, help="of the noise")
    parser.add_argument("--ema", type=boolean, default=True, help="averaged parameters where the checkpoint has them")


def evaluation_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The parser of ``eval``."""
    parser = argparse.ArgumentParser(prog, description=description, formatter_class=_Help)
    add_checkpoint_flags(parser)
    parser.add_argument("--dataset", choices=["mnist", "cifar", "digits", "photos"], help="default: the run's own")
    parser.add_argument("--dataroot", default="~/.datasets", help="folder of the data sets")
    parser.add_argument("--real", type=boolean, help="whether the model lives in logit space; default: the run's own")
    parser.add_argument("--test_batch_size", type=count, default=256, help="images of a batch")
    parser.add_argument("--protocol", default="complete", choices=["complete", "original"], help="as in training")
    parser.add_argument("--repeats", type=count, default=1, help="draws of time and noise an image")
    parser.add_argument("--download", type=boolean, default=False, help="fetch the data set if missing")
    parser.add_argument("--ode", type=boolean, default=False, help="also the likelihood of the ODE (lambda = 1)")
    parser.add_argument("--num_images", type=count, help="only the first test images; default: all")
    parser.add_argument("--tolerance", type=positive, default=1e-5, help="relative and absolute, of the ODE's solver")
    return parser


def sampling_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The parser of ``sample``."""
    parser = argparse.ArgumentParser(prog, description=description, formatter_class=_Help)
    add_checkpoint_flags(parser)
    parser.add_argument("--output", default="samples", help="folder of grid.png and samples.npz")
    parser.add_argument("--n", type=count, default=4, help="n x n samples")
    parser.add_argument("--num_steps", type=count, default=1000, help="Euler-Maruyama steps")
    parser.add_argument("--lmbd", type=lambda_value, default=0.0, help="lambda <= 1: 0 reverse SDE, 1 ODE")
    parser.add_argument("--adaptive", type=boolean, default=False, help="the ODE by an adaptive solver (lambda = 1)")
    parser.add_argument("--mean", type=float, default=0.0, help="of the prior sample")
    parser.add_argument("--std", type=positive, default=1.0, help="of the prior sample")
    parser.add_argument("--real", type=boolean, help="whether the model lives in logit space; default: the run's own")
    parser.add_argument("--clip", type=boolean, default=True, help="clip images to [0, 1]")
    return parser


_SHORT = {
    "batch_size": 32,
    "num_res_blocks": 1,
    "lr": 0.001,
    "num_iterations": 2000,
    "print_every": 200,
    "checkpoint_every": 200,
    "num_steps": 100,
    "repeats": 4,
}
STUDY = {
    "digits": {"image_size": 8, "ch_mult": (1, 2), "attn_resolutions": (4,), **_SHORT},
    "photos": _SHORT,
    # the README's runs
    "mnist": {"batch_size": 128, "num_iterations": 100_000, "print_every": 2000, "checkpoint_every": 2000},
    "cifar": {"batch_size": 128, "num_iterations": 100_000, "print_every": 2000, "checkpoint_every": 2000},
}
"""Defaults of ``debias`` by data set. Digits: their own 8 pixels, minutes on a processor."""


def debias_parser(prog: str, arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of ``debias``: training's flags with defaults that depend on the data set among ``arguments``."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--dataset", default="digits")
    dataset = first.parse_known_args(list(arguments))[0].dataset
    parser = argparse.ArgumentParser(
        prog, description="Trains with and without --debias, same seed, and compares bits/dim.", formatter_class=_Help
    )
    add_training_flags(parser, {"dataset": "digits", "sample_every": 1_000_000_000, **STUDY.get(dataset, {})})
    group = parser.add_argument_group("of the study")
    group.add_argument("--workdir", default="runs/variational_sde/debias", help="where everything is written")
    group.add_argument("--final_repeats", type=count, default=20, help="draws an image in the last evaluation")
    group.add_argument("--ode", type=boolean, default=False, help="also the ODE's likelihood (lambda = 1)")
    group.add_argument("--tolerance", type=positive, default=1e-4, help="of the ODE's solver")
    return parser
