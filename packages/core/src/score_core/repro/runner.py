"""Running an experiment's stages as commands of their own, and the record of that.

``<workdir>/repro.json`` says which experiment a folder holds, at what scale, and every attempt at every stage:

    {"schema": 1, "id": "score_sde/digits", "scale": "full",
     "attempts": [{"stage": "train", "command": [...], "utc": "...", "seconds": 12.3, "exit_code": 0}, ...]}

The commands resume by themselves, so running an experiment again does what is left of it.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError, UserError
from score_core.repro.schema import Experiment
from score_core.runs.provenance import utc_now

RECORD = "repro.json"
SCALES = ("smoke", "full")
_SCHEMA = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Attempt:
    """One run of one stage's command."""

    stage: str
    command: list[str]
    utc: str
    seconds: float
    exit_code: int  # 128 + the signal's number when a signal ended it, as shells have it


@dataclass
class RunRecord:
    """What ``repro.json`` holds."""

    id: str
    scale: str
    attempts: list[Attempt] = field(default_factory=list)
    framework: str | None = None  # None: the stages' own default
    checkpoint: str | None = None  # what was evaluated in the place of a training
    missing: list[str] = field(default_factory=list)  # what it lacked, so that it was not started

    def write(self, workdir: Path) -> None:
        """Write the record into ``workdir``."""
        contents = {"schema": _SCHEMA, **asdict(self)}
        atomic_write(workdir / RECORD, (json.dumps(contents, indent=2) + "\n").encode())


def read_record(workdir: Path) -> RunRecord:
    """The record in ``workdir``.

    Raises:
        UsageError: there is none.
        UserError: it is damaged.
    """
    file = workdir / RECORD
    try:
        contents: dict[str, Any] = json.loads(file.read_bytes())
        attempts = [Attempt(**attempt) for attempt in contents["attempts"]]
        optional = {key: contents[key] for key in ("framework", "checkpoint", "missing") if key in contents}
        return RunRecord(contents["id"], contents["scale"], attempts, **optional)
    except FileNotFoundError:
        raise UsageError(
            f"{workdir} holds no run: there is no {RECORD}. `repro run ID --workdir DIR` makes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Cannot read {file}: {error!r}. Remove it; `repro run` writes it anew.") from error


def default_workdir(experiment: Experiment, scale: str, framework: str | None = None) -> Path:
    """Where an experiment runs when no folder is given: below ``runs`` in the current folder."""
    parts = [experiment.id, *([framework] if framework else []), *([] if scale == "full" else [scale])]
    return Path("runs", "-".join(parts))


def stage_command(
    experiment: Experiment, stage: str, workdir: Path, scale: str, framework: str | None = None
) -> list[str]:
    """The command line of a stage, run by this Python."""
    _python, *arguments = shlex.split(experiment.stages[stage])
    takes_options = stage in (experiment.options_of or experiment.stages)
    if scale == "smoke" and takes_options:
        arguments += shlex.split(f"{experiment.smoke} {experiment.smoke_of.get(stage, '')}")
    if framework and takes_options and experiment.frameworks != (framework,):
        arguments += ["--framework", framework]
    if any("{data}" in argument for argument in arguments):
        from score_core.data.sources import data_root

        arguments = [argument.replace("{data}", str(data_root())) for argument in arguments]
    return [sys.executable, *(argument.replace("{workdir}", str(workdir)) for argument in arguments)]


def run_stages(
    experiment: Experiment,
    workdir: Path,
    scale: str,
    announce: Callable[[str], None],
    framework: str | None = None,
    checkpoint: Path | None = None,
) -> int:
    """Run all stages in order, with their output passed through.

    Arguments:
        experiment: what to run.
        workdir: made if missing.
        scale: "full", or "smoke" for a short run that shows that everything works.
        announce: called with a line before each stage.
        framework: passed on to every stage as ``--framework``; None leaves the choice to it.
        checkpoint: what the experiment evaluates in the place of a training, for the record.

    Returns: 0, or the exit code of the first stage that failed; the later ones are then not run.

    Raises:
        UsageError: the folder holds another experiment, or the same at another scale, in another framework or with
            another checkpoint.
    """
    record = _open_record(experiment, workdir, scale, framework, checkpoint)
    record.missing = []
    for stage in experiment.stages:
        command = stage_command(experiment, stage, workdir, scale, framework)
        announce(f"{stage}: {shlex.join(command)}")
        begin, utc = time.monotonic(), utc_now()
        exit_code = run_command(command)
        record.attempts.append(Attempt(stage, command, utc, round(time.monotonic() - begin, 3), exit_code))
        record.write(workdir)
        if exit_code != 0:
            return exit_code
    return 0


def record_missing(
    experiment: Experiment,
    workdir: Path,
    missing: list[str],
    framework: str | None = None,
    checkpoint: Path | None = None,
) -> RunRecord:
    """Record that a run at full scale was not started, for lack of ``missing``.

    Raises:
        UsageError: as :func:`run_stages`.
    """
    record = _open_record(experiment, workdir, "full", framework, checkpoint)
    record.missing = missing
    record.write(workdir)
    return record


def _open_record(
    experiment: Experiment, workdir: Path, scale: str, framework: str | None, checkpoint: Path | None
) -> RunRecord:
    source = None if checkpoint is None else str(checkpoint.absolute())
    if not (workdir / RECORD).exists():
        workdir.mkdir(parents=True, exist_ok=True)
        return RunRecord(experiment.id, scale, framework=framework, checkpoint=source)
    record = read_record(workdir)
    if (record.id, record.scale) != (experiment.id, scale):
        raise UsageError(
            f"{workdir} holds {record.id} at scale {record.scale}, not {experiment.id} at scale {scale}. "
            "Choose another folder with --workdir."
        )
    if not record.attempts:  # nothing was started in it yet
        record.framework, record.checkpoint = framework, source
    for name, old, new in (("framework", record.framework, framework), ("checkpoint", record.checkpoint, source)):
        if old != new:
            raise UsageError(
                f"{workdir} was started with --{name} {old or '(none)'}, not {new or '(none)'}. "
                "Choose another folder with --workdir."
            )
    return record


def run_command(command: list[str]) -> int:
    """Run a command to its end; signals that this process gets meanwhile are passed on to it."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    with _handled_by(forward):
        # In a session of its own, so that a signal reaches it once: from here, and not from the terminal as well.
        with subprocess.Popen(command, start_new_session=True) as process:
            for number in early:
                process.send_signal(number)
        code = process.returncode
    return code if code >= 0 else 128 - code


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send the signals to ``handler``, but for those that are ignored (by ``nohup``)."""
    numbers = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
