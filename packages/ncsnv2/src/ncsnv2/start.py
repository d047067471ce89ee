"""The start of a command: configuration, folders, consent, log; then training, sampling or evaluation.

<exp>/logs/<doc>/             config.yml, stdout.txt, checkpoint_<step>.pth, checkpoint.pth, samples/
<exp>/tensorboard/<doc>/      events
<exp>/image_samples/<i>/      --sample
<exp>/fid_samples/<i>/        --fast_fid
<exp>/results.json            every number with its circumstances
<exp>/datasets/               data and statistics
"""

import argparse
import copy
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ncsnv2.config import check_config, load_config
from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.list_checkpoint import ListCheckpoint, find_newest
from score_core.errors import UsageError, UserError
from score_core.runs.config_record import config_hash
from score_core.runs.log import RunLog
from score_core.runs.namespace_config import dump_namespace, load_namespace, to_dict
from score_core.runs.program_start import (
    announce,
    banner,
    choose_seed,
    confirm,
    folder_inside,
    log_level,
    remove_folder,
    require_same_config,
)
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir

__all__ = ["run"]

_logger = logging.getLogger(__name__)

# What a resumed run may change: it moves no number of the steps before, or it is asked for by name.
_FREE = (
    "training.n_iters",
    "training.n_epochs",
    "training.snapshot_freq",
    "training.snapshot_sampling",
    "training.log_all_sigmas",
    "optim.eps",
    "data.num_workers",
    "data.path",
    "data.download",
    "sampling.*",
    "fast_fid.*",
    "test.*",
)
# What the numbers of an evaluation depend on, besides the checkpoint.
_SAMPLED = ("model", "data")


def run(args: argparse.Namespace, ask: Callable[[str], str] | None = None) -> None:
    """Do what the command line says.

    Arguments:
        args: of :func:`ncsnv2.__main__.parser`.
        ask: answers questions, for tests; the terminal otherwise.

    Raises: UserError, StopRequested.
    """
    mode = "test" if args.test else "sample" if args.sample else "fast_fid" if args.fast_fid else "train"
    level = log_level(args.verbose)
    written = load_config(args.config)
    config = copy.deepcopy(written)
    check_config(config, mode)
    exp = Path(args.exp)
    start = _Start(args, exp, folder_inside(exp / "logs", args.doc, "--doc"), level, written, config, ask)
    with GracefulStop() as stop:
        {"train": start.train, "test": start.test, "sample": start.sample, "fast_fid": start.fast_fid}[mode](stop)


@contextmanager
def _failures_in_the_log() -> Iterator[None]:
    """Writes an error into the log file on its way to the console."""
    try:
        yield
    except UserError as error:
        _logger.error("%s", error, extra={"file_only": True})
        raise
    except Exception:
        _logger.exception("the run failed", extra={"file_only": True})
        raise


class _Start:
    """One command."""

    def __init__(
        self,
        args: argparse.Namespace,
        exp: Path,
        log_path: Path,
        level: int,
        written: argparse.Namespace,
        config: argparse.Namespace,
        ask: Callable[[str], str] | None,
    ) -> None:
        self.args, self.exp, self.log_path, self.level = args, exp, log_path, level
        self.written, self.config, self.ask = written, config, ask

    def train(self, stop: GracefulStop) -> None:
        from ncsnv2.data import open_data, pipeline
        from ncsnv2.training import NCSNv2Program
        from score_core.torch.score_runner import TrainingPlan, pick_device, seed_everything, train

        config, training = self.config, self.config.training
        tensorboard = folder_inside(self.exp / "tensorboard", self.args.doc, "--doc")
        resume = find_newest(self.log_path) if self.args.resume_training else None
        if resume is not None:
            self._require_same_config()
        seed = self._seed(resume)
        # Everything that can be wrong is found before an old run is given up.
        sources = [open_data(config, self.exp, split) for split in ("train", "test")]
        data, test_data = (pipeline(config, source, training.batch_size, seed) for source in sources)
        device = pick_device()
        seed_everything(seed)
        program = NCSNv2Program(config, device, self.log_path)
        if resume is None and not self._make_room(tensorboard):
            return
        with (
            Workdir(self.log_path, role="train") as folder,
            RunLog(self.log_path / "stdout.txt", level=self.level),
            _failures_in_the_log(),
        ):
            folder.folder("samples")
            if resume is None:
                atomic_write(self.log_path / "config.yml", dump_namespace(self.written).encode())
            self._announce(device)
            plan = TrainingPlan(
                log_path=self.log_path,
                tensorboard_path=tensorboard,
                n_iters=training.n_iters,
                n_epochs=training.n_epochs,
                snapshot_freq=training.snapshot_freq,
                seed=seed,
                config_hash=config_hash(to_dict(self.written)),
            )
            workers = max(1, min(config.data.num_workers, os.cpu_count() or 1))
            train(program, plan, data, test_data, device, stop, resume=resume, workers=workers)

    def sample(self, stop: GracefulStop) -> None:
        from ncsnv2.networks import load_network, read_checkpoint
        from ncsnv2.sampling import check_sampling, sample
        from score_core.torch.score_runner import pick_device, seed_everything

        check_sampling(self.config)
        folder = folder_inside(self.exp / "image_samples", self.args.image_folder, "--image_folder")
        device, seed = pick_device(), self._seed(None)
        with RunLog(None, level=self.level):
            checkpoint = read_checkpoint(self.log_path, self.config.sampling.ckpt_id)
            seed_everything(seed)
            network = load_network(self.config, checkpoint, device)
            if not self._make_image_folder(folder):
                return
            self._announce(device)
            identity = {"checkpoint": checkpoint.sha256, "config": self._sampled_hash("sampling"), "seed": seed}
            options: dict[str, Any] = {"seed": seed, "device": device, "identity": identity, "stop": stop}
            sample(self.config, network, folder, self.exp, **options)

    def test(self, stop: GracefulStop) -> None:
        from ncsnv2.evaluation import test_losses
        from score_core.torch.score_runner import pick_device, seed_everything

        device, seed = pick_device(), self._seed(None)
        with RunLog(None, level=self.level):
            self._announce(device)
            seed_everything(seed)
            options: dict[str, Any] = {"config_hash": self._sampled_hash("test"), "stop": stop}
            test_losses(self.config, self.log_path, self.exp, seed=seed, device=device, **options)

    def fast_fid(self, stop: GracefulStop) -> None:
        from ncsnv2.evaluation import fast_fid
        from score_core.torch.score_runner import pick_device, seed_everything

        folder = folder_inside(self.exp / "fid_samples", self.args.image_folder, "--image_folder")
        device, seed = pick_device(), self._seed(None)
        with RunLog(None, level=self.level):
            self._make_fid_folder(folder)
            self._announce(device)
            seed_everything(seed)
            options: dict[str, Any] = {"config_hash": self._sampled_hash("fast_fid"), "stop": stop}
            fast_fid(self.config, self.log_path, folder, self.exp, seed=seed, device=device, **options)

    def _seed(self, resume: ListCheckpoint | None) -> int:
        return choose_seed(self.args.seed, None if resume is None else resume.resume, self.log_path)

    def _require_same_config(self) -> None:
        record = self.log_path / "config.yml"
        if record.exists():
            require_same_config(load_namespace(record), self.written, _FREE, record)

    def _make_room(self, tensorboard: Path) -> bool:
        """Whether the log folder is free for a new run; an old one is removed if the user agrees."""
        if not self.log_path.exists():
            return True
        with Workdir(self.log_path, role="train"):
            pass  # nobody trains there now
        question = f"{self.log_path} exists already. Overwrite it? Its checkpoints will be removed."
        cure = "give --ni to overwrite, --resume_training to go on, or another --doc"
        if not confirm(question, cure=cure, yes=self.args.ni, ask=self.ask):
            print("Folder exists. Program halted.")
            return False
        remove_folder(self.log_path)
        remove_folder(tensorboard)
        return True

    def _make_image_folder(self, folder: Path) -> bool:
        """Whether the folder is there and empty."""
        if folder.exists():
            question = f"{folder} exists already. Overwrite it? Its images will be removed."
            cure = "give --ni to overwrite, or another -i"
            if not confirm(question, cure=cure, yes=self.args.ni or not any(folder.iterdir()), ask=self.ask):
                print("Output image folder exists. Program halted.")
                return False
            if not self._goes_on(folder):
                remove_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return True

    def _goes_on(self, folder: Path) -> bool:
        """Whether the folder holds a dump for FID, which knows by itself what of it still holds."""
        return self.config.sampling.fid and (folder / ".image.json").exists()

    def _make_fid_folder(self, folder: Path) -> None:
        """The folder, cleared if the user wants it; ``--ni``, or no terminal, keeps what is there."""
        if folder.exists() and not self.args.ni:
            try:
                clear = confirm(f"{folder} exists already. Remove its images?", cure="they are kept", ask=self.ask)
            except UsageError:
                clear = False
                _logger.info("%s exists already: its images are kept, or replaced one by one", folder)
            if clear:
                remove_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def _sampled_hash(self, section: str) -> str:
        """Hash of what numbers of an evaluation depend on besides checkpoint, seed and count."""
        keys = to_dict(self.config)
        used = {name: keys[name] for name in _SAMPLED} | {section: dict(keys[section])}
        for name in ("path", "download", "num_workers"):
            used["data"] = {k: v for k, v in used["data"].items() if k != name}
        for name in ("begin_ckpt", "end_ckpt", "stride", "batch_size", "ckpt_id", "verbose", "num_samples4fid"):
            used[section].pop(name, None)
        return config_hash(used)

    def _announce(self, device: Any) -> None:
        announce(device, self.log_path, self.args.comment)
        banner(dump_namespace({**vars(self.written), "device": str(device)}))
