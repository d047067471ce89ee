"""A table row as jobs for a workflow engine: which there are, what each waits for, and doing one of them.

    python -m score_core.repro.workflow graph [--scale smoke|full] [--framework jax|torch] [--shards N]
                                              [--checkpoint ID=FILE ...] [--train ID ...]
    python -m score_core.repro.workflow run ID JOB --workdir DIR [the same options]

The jobs of a row, each with the jobs it waits for:

    inputs                            everything that the row needs is there, or the verdict is "missing input"
    train            <- inputs        one job a stage of the row, in order
    eval-statistics  <- inputs        of a stage that splits into rounds: the statistics of the training data,
    eval-shard-0     <- train         a share of the rounds, as many as are asked for,
    eval             <- eval-shard-0, eval-statistics       and putting them together
    verdict          <- eval          the comparison with the reference, and the row's page

A job that is done again computes nothing again: stages resume by themselves, a round whose file is there is left alone.
``run`` returns the status of the command that it runs. ``ci/Snakefile`` is made of these two commands.
"""

import argparse
import dataclasses
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.errors import UsageError, run_main
from score_core.repro.compare import Verdict
from score_core.repro.outcome import gather
from score_core.repro.planning import Plan, make_plan
from score_core.repro.printing import verdicts
from score_core.repro.report import write_report
from score_core.repro.resolve import why_not
from score_core.repro.runner import (
    SCALES,
    default_workdir,
    read_record,
    record_missing,
    run_command,
    run_stages,
    stage_command,
)
from score_core.repro.schema import Experiment, Row
from score_core.repro.tables import load_all

__all__ = ["Job", "Settings", "graph", "jobs_of", "main", "run_job"]

# Programs and modes whose work splits into rounds that any process may compute: `--part`, `--num_processes`.
_SPLITTING = {("score_sde", "eval"), ("score_flow_hdsm", "eval")}
_MISSING_INPUT, _MISSING_METRIC = 2, 4  # as of `repro run`

Graph = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for all rows of a workflow.

    Attributes:
        scale, framework: as of `repro run`.
        shards: into how many jobs an evaluation is split, by programs that can.
        checkpoints: of rows by their ids, to evaluate instead of training.
        train: ids of rows that train although the authors' checkpoint is there.
    """

    scale: str = "full"
    framework: str | None = None
    shards: int = 1
    checkpoints: dict[str, Path] = dataclasses.field(default_factory=dict)
    train: frozenset[str] = frozenset()

    def plan(self, row_id: str, rows: Sequence[Row]) -> Plan:
        """What `repro run` would do with a row.

        Raises:
            UsageError: there is no such row, or it cannot be run so.
        """
        smoke = self.scale == "smoke"  # which trains a network of its own
        return make_plan(
            row_id,
            rows,
            scale=self.scale,
            framework=self.framework,
            checkpoint=None if smoke else self.checkpoints.get(row_id),
            train=row_id in self.train,
        )


@dataclasses.dataclass(frozen=True)
class Job:
    """One job of a row.

    Attributes:
        kind: inputs, stage, statistics, shard, metrics (a stage after its shards) or verdict; decides resources.
        needs: names of the jobs that must be done before.
        stage: of which stage it is all or a part.
        index: which shard.
    """

    kind: str
    needs: tuple[str, ...] = ()
    stage: str = ""
    index: int = 0


def jobs_of(experiment: Experiment, shards: int = 1) -> dict[str, Job]:
    """The jobs of an experiment by name, every job after those it needs.

    Arguments:
        experiment: what is run.
        shards: into how many an evaluation is split, by programs that can.

    Raises:
        UsageError: ``shards`` is not positive.
    """
    if shards < 1:
        raise UsageError(f"{shards} shards cannot be: 1 or more")
    jobs = {"inputs": Job("inputs")}
    last = "inputs"
    for stage, command in experiment.stages.items():
        if _splits(command):
            parts = {f"{stage}-shard-{index}": Job("shard", (last,), stage, index) for index in range(shards)}
            parts[f"{stage}-statistics"] = Job("statistics", ("inputs",), stage)
            jobs |= parts
            jobs[stage] = Job("metrics", tuple(parts), stage)
        else:
            jobs[stage] = Job("stage", (last,), stage)
        last = stage
    jobs["verdict"] = Job("verdict", (last,))
    return jobs


def _splits(command: str) -> bool:
    _python, _m, program, *arguments = shlex.split(command)
    modes = [argument.partition("=")[2] for argument in arguments if argument.startswith("--mode=")]
    modes += [value for flag, value in itertools.pairwise(arguments) if flag == "--mode"]
    return any((program, mode) in _SPLITTING for mode in modes)


def graph(rows: Sequence[Row], settings: Settings) -> Graph:
    """The jobs of every row that can run, as JSON has it:

    {id: {"folder": below the folder of all runs, "embedded": whether its data come along,
          "jobs": {name: {"kind": ..., "needs": [...], ...}}}}

    Rows that do not run in ``settings.framework`` are left out.
    """
    found: Graph = {}
    for row in rows:
        if why_not(row) is not None or not _runs_in(settings.framework, row):
            continue
        experiment = settings.plan(row.id, rows).experiment
        found[row.id] = {
            "folder": str(default_workdir(experiment, settings.scale, settings.framework).relative_to("runs")),
            "embedded": isinstance(row, Experiment),
            "jobs": {name: dataclasses.asdict(job) for name, job in jobs_of(experiment, settings.shards).items()},
        }
    return found


def _runs_in(framework: str | None, row: Row) -> bool:
    known = row.frameworks if isinstance(row, Experiment) else row.use and row.use.recipe.frameworks
    return not framework or not known or framework in known


def run_job(plan: Plan, name: str, workdir: Path, settings: Settings) -> int:
    """Does one job of :func:`jobs_of`; returns its exit status.

    Raises:
        UsageError: there is no such job, or the folder holds another run.
    """
    experiment, scale, framework = plan.experiment, settings.scale, settings.framework
    jobs = jobs_of(experiment, settings.shards)
    if name not in jobs:
        raise UsageError(f"{experiment.id} has no job {name!r}; it has {', '.join(jobs)}")
    job = jobs[name]
    if job.kind == "inputs":
        return _inputs(plan, workdir, settings)
    if job.kind == "verdict":
        return _verdict(experiment, workdir, scale)
    if job.kind in ("stage", "metrics"):
        only = dataclasses.replace(experiment, stages={job.stage: experiment.stages[job.stage]})
        # Which stages a smoke run's arguments go to is of the whole experiment.
        only = dataclasses.replace(only, options_of=experiment.options_of or tuple(experiment.stages))
        return run_stages(only, workdir, scale, _announce, framework, plan.checkpoint)
    more = ["--part=statistics"]
    if job.kind == "shard":
        more = ["--part=rounds", f"--num_processes={settings.shards}", f"--process_id={job.index}"]
    # The record of the run is left to the job that puts the rounds together, as these run at the same time.
    command = [*stage_command(experiment, job.stage, workdir, scale, framework), *more]
    _announce(f"{name}: {shlex.join(command)}")
    return run_command(command)


def _inputs(plan: Plan, workdir: Path, settings: Settings) -> int:
    """Whether everything is there; what is not is recorded as the run's verdict."""
    if settings.scale == "smoke" or not plan.missing:
        return 0
    record = record_missing(plan.experiment, workdir, plan.missing, settings.framework, plan.checkpoint)
    write_report(gather(plan.experiment, record, workdir), workdir)
    print("error: nothing was run, for this is missing:", *plan.missing, sep="\n  ", file=sys.stderr)
    return _MISSING_INPUT


def _verdict(experiment: Experiment, workdir: Path, scale: str) -> int:
    """Writes the row's page; a deviation is a result, a metric that was not measured is a failure."""
    outcome = gather(experiment, read_record(workdir), workdir)
    page = write_report(outcome, workdir)
    print(verdicts(outcome))
    print(f"Report: {page}")
    return _MISSING_METRIC if any(c.verdict is Verdict.MISSING for c in outcome.comparisons) else 0


def _announce(line: str) -> None:
    print(f"repro: {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m score_core.repro.workflow",
        description="Table rows as jobs of a workflow engine (ci/Snakefile).",
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--scale", choices=SCALES, default="full")
    shared.add_argument("--framework", choices=("jax", "torch"))
    shared.add_argument("--shards", type=int, default=1, metavar="N", help="into how many jobs an evaluation is split")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared.add_argument(
        "--checkpoint", action="append", default=[], metavar="ID=FILE", help="evaluate this for a row, train nothing"
    )
    shared.add_argument("--train", action="append", default=[], metavar="ID", help="train for a row")
    commands.add_parser("graph", parents=[shared], help="print the jobs of every row that can run as JSON")
    run = commands.add_parser("run", parents=[shared], help="do one job")
    run.add_argument("id", metavar="ID")
    run.add_argument("job", metavar="JOB")
    run.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the row's work folder")
    return parser


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    rows = load_all()
    settings = Settings(
        options.scale, options.framework, options.shards, _files(options.checkpoint), frozenset(options.train)
    )
    if options.command == "graph":
        print(json.dumps(graph(rows, settings)))
        return 0
    return run_job(settings.plan(options.id, rows), options.job, options.workdir, settings)


def _files(arguments: Sequence[str]) -> dict[str, Path]:
    """The pairs ``ID=FILE`` of a command line."""
    files: dict[str, Path] = {}
    for argument in arguments:
        row_id, _, file = argument.partition("=")
        if not file:
            raise UsageError(f"--checkpoint {argument}: expected ID=FILE")
        files[row_id] = Path(file)
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(arguments))


if __name__ == "__main__":
    sys.exit(main())
