"""The start of a command: configuration, folders, log; then training, sampling or evaluation.

<run>/logs/<doc>/            config.yml, stdout.txt, checkpoint_<step>.pth, checkpoint.pth
<run>/tensorboard/<doc>/     events
<run>/datasets/              data and statistics
<image_folder>/              samples; relative to the working folder
<run>/results.json           every number of --fid with its circumstances
"""

import argparse
import copy
from pathlib import Path
from typing import Any

from ncsn.config import check_config, complete, load_config, set_options
from ncsn.runners import find_runner
from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.list_checkpoint import LATEST, find_newest, list_steps
from score_core.errors import UsageError
from score_core.runs.log import RunLog
from score_core.runs.namespace_config import dump_namespace, load_namespace
from score_core.runs.program_start import (
    announce,
    banner,
    choose_seed,
    folder_inside,
    log_level,
    remove_folder,
    require_same_config,
)
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir

__all__ = ["run"]

DEFAULT_CONFIG = "anneal.yml"
# What a resumed run may change: no number of the steps before depends on it.
_FREE = (
    "training.n_iters",
    "training.n_epochs",
    "training.snapshot_freq",
    "training.ngpu",
    "data.path",
    "data.download",
    "sampling.*",
    "evaluation.*",
)


def run(args: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises: UserError, StopRequested.
    """
    level = log_level(args.verbose)
    for flag, least in (("num_samples", 1), ("ckpt_id", 0)):
        value = getattr(args, flag)
        if value is not None and value < least:
            raise UsageError(f"--{flag} is {value}, expected at least {least}.")
    args.log = folder_inside(Path(args.run) / "logs", args.doc, "--doc")
    with GracefulStop() as stop:
        if args.test or args.fid:
            _evaluate(args, level, stop)
        elif args.runner == "ToyRunner":
            _train_toy(args, level, stop)
        else:
            _train_images(args, level, stop)


def _train_images(args: argparse.Namespace, level: int, stop: GracefulStop) -> None:
    from score_core.torch.score_runner import seed_everything

    if args.auto_resume and _holds_run(args.log):
        args.resume_training = True
    resume = find_newest(args.log) if args.resume_training else None
    written = _written(args, resume is not None)
    config = _prepared(written, args.runner, test=False)
    args.seed = choose_seed(args.seed, None if resume is None else resume.resume, args.log)
    runner_class = find_runner(args.runner)
    if resume is not None:
        _require_same(args.log, config)
    runner = runner_class(args, config, stop)
    # Everything that can be wrong is found before an old run is given up.
    runner.open_training_data()
    if resume is None:
        _make_room(args)
    with Workdir(args.log, role="train"), RunLog(args.log / "stdout.txt", level=level):
        atomic_write(args.log / "config.yml", dump_namespace(written).encode())
        _announce(args, written, runner.device)
        seed_everything(args.seed)
        runner.train(resume)


def _train_toy(args: argparse.Namespace, level: int, stop: GracefulStop) -> None:
    if args.resume_training:
        raise UsageError("ToyRunner writes no checkpoint to resume from: start it anew, it takes a minute.")
    # ToyRunner reads nothing from its configuration; the original's default is one of another runner.
    written = load_config(args.config or "toy.yml")
    args.seed = choose_seed(args.seed, None, args.log)
    from score_core.torch.score_runner import pick_device, seed_everything

    _make_room(args)
    with Workdir(args.log, role="train"), RunLog(args.log / "stdout.txt", level=level):
        atomic_write(args.log / "config.yml", dump_namespace(written).encode())
        _announce(args, written, pick_device())
        seed_everything(args.seed)
        find_runner("ToyRunner")(args, written, stop).train()


def _evaluate(args: argparse.Namespace, level: int, stop: GracefulStop) -> None:
    from score_core.torch.score_runner import seed_everything

    if args.runner in ("ScoreNetRunner", "ToyRunner"):
        raise UsageError(f"{args.runner} has no {'--fid' if args.fid else '--test'}; AnnealRunner and others have.")
    runner_class = find_runner(args.runner)
    record = args.log / "config.yml"
    if not record.is_file():
        raise UsageError(
            f"there is no {record}: --test reads the configuration that training left there. Check --run and --doc."
        )
    written = load_namespace(record)
    set_options(written, args.option)
    config = _prepared(written, args.runner, test=True)
    args.seed = choose_seed(args.seed, None, args.log)
    runner = runner_class(args, config, stop)
    with RunLog(None, level=level):
        _announce(args, written, runner.device)
        seed_everything(args.seed)
        if args.fid:
            from ncsn.evaluation import evaluate

            evaluate(runner)
        else:
            runner.test()


def _written(args: argparse.Namespace, resuming: bool) -> argparse.Namespace:
    """The configuration of a training run as the user gave it; a resumed run has its own."""
    record = args.log / "config.yml"
    if args.config is None and resuming and record.is_file():
        written = load_namespace(record)
    else:
        written = load_config(args.config or DEFAULT_CONFIG)
    set_options(written, args.option)
    return written


def _prepared(written: argparse.Namespace, runner: str, *, test: bool) -> argparse.Namespace:
    config = copy.deepcopy(written)
    find_runner(runner)
    complete(config)
    check_config(config, runner, test=test)
    return config


def _require_same(log: Path, config: argparse.Namespace) -> None:
    record = log / "config.yml"
    if record.is_file():
        before = load_namespace(record)
        complete(before)
        require_same_config(before, config, _FREE, record)


def _holds_run(log: Path) -> bool:
    return bool(list_steps(log)) or (log / LATEST).exists()


def _make_room(args: argparse.Namespace) -> None:
    """See that the log folder holds no run, or that it may be overwritten.

    Raises: UsageError.
    """
    log: Path = args.log
    if not args.overwrite:
        if _holds_run(log):
            raise UsageError(
                f"{log} holds a run already. Give --resume_training to go on, --overwrite to remove it, or another "
                "--doc. (The original removed it without asking.)"
            )
        return
    if log.exists():
        with Workdir(log, role="train"):
            pass  # nobody trains there now
    remove_folder(log)
    remove_folder(folder_inside(Path(args.run) / "tensorboard", args.doc, "--doc"))


def _announce(args: argparse.Namespace, written: argparse.Namespace, device: Any) -> None:
    announce(device, args.log, args.comment)
    banner(repr(written))
