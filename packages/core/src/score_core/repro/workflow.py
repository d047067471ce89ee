"""A table row as jobs for a workflow engine: which there are, what each waits for, and doing one of them.

    python -m score_core.repro.workflow graph [--scale smoke|full] [--framework jax|torch] [--shards N]
                                              [--checkpoint ID=FILE ...]
    python -m score_core.repro.workflow run ID JOB --workdir DIR [the same options]

The jobs of a row, each with the jobs it waits for:

    inputs                            everything that the row needs is there
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
from score_core.repro.printing import verdicts
from score_core.repro.report import write_report
from score_core.repro.resolve import resolve, why_not
from score_core.repro.runner import SCALES, default_workdir, read_record, run_command, run_stages, stage_command
from score_core.repro.schema import Experiment, Row
from score_core.repro.tables import load_all

__all__ = ["Job", "graph", "jobs_of", "main"]

# Programs and modes whose work splits into rounds that any process may compute: `--part`, `--num_processes`.
_SPLITTING = {("score_sde", "eval")}
_MISSING_METRIC = 4  # as of `repro run`

Checkpoints = dict[str, Path]  # by the id of the row that they are of
Graph = dict[str, dict[str, Any]]


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


def graph(rows: Sequence[Row], scale: str, framework: str | None, shards: int, checkpoints: Checkpoints) -> Graph:
    """The jobs of every row that can run, as JSON has it:

    {id: {"folder": below the folder of all runs, "embedded": whether its data come along,
          "jobs": {name: {"kind": ..., "needs": [...], ...}}}}

    Rows for which ``framework`` is not known to work are left out.
    """
    found: Graph = {}
    for row in rows:
        if why_not(row) is not None:
            continue
        experiment = resolve(row.id, rows, checkpoint=checkpoints.get(row.id))
        if framework and experiment.frameworks and framework not in experiment.frameworks:
            continue
        found[row.id] = {
            "folder": str(default_workdir(experiment, scale, framework).relative_to("runs")),
            "embedded": isinstance(row, Experiment),
            "jobs": {name: dataclasses.asdict(job) for name, job in jobs_of(experiment, shards).items()},
        }
    return found


def run_job(
    experiment: Experiment, name: str, workdir: Path, scale: str, framework: str | None = None, shards: int = 1
) -> int:
    """Does one job of :func:`jobs_of`; returns its exit status.

    Raises:
        UsageError: there is no such job, or the folder holds another run.
    """
    jobs = jobs_of(experiment, shards)
    if name not in jobs:
        raise UsageError(f"{experiment.id} has no job {name!r}; it has {', '.join(jobs)}")
    job = jobs[name]
    if job.kind == "inputs":
        return 0
    if job.kind == "verdict":
        return _verdict(experiment, workdir, scale)
    if job.kind in ("stage", "metrics"):
        only = dataclasses.replace(experiment, stages={job.stage: experiment.stages[job.stage]})
        return run_stages(only, workdir, scale, _announce, framework)
    more = ["--part=statistics"]
    if job.kind == "shard":
        more = ["--part=rounds", f"--num_processes={shards}", f"--process_id={job.index}"]
    # The record of the run is left to the job that puts the rounds together, as these run at the same time.
    command = [*stage_command(experiment, job.stage, workdir, scale, framework), *more]
    _announce(f"{name}: {shlex.join(command)}")
    return run_command(command)


def _verdict(experiment: Experiment, workdir: Path, scale: str) -> int:
    """Writes the row's page; a deviation is a result, a metric that was not measured is a failure."""
    outcome = gather(experiment, read_record(workdir), workdir)
    page = write_report(outcome, workdir)
    print(verdicts(outcome))
    print(f"Report: {page}")
    missing = any(comparison.verdict is Verdict.MISSING for comparison in outcome.comparisons)
    if scale == "smoke":  # where nothing is compared
        missing = any(comparison.measured is None for comparison in outcome.comparisons)
    return _MISSING_METRIC if missing else 0


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
    commands.add_parser("graph", parents=[shared], help="print the jobs of every row that can run as JSON")
    run = commands.add_parser("run", parents=[shared], help="do one job")
    run.add_argument("id", metavar="ID")
    run.add_argument("job", metavar="JOB")
    run.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the row's work folder")
    return parser


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    rows = load_all()
    checkpoints = _checkpoints(options.checkpoint)
    if options.command == "graph":
        print(json.dumps(graph(rows, options.scale, options.framework, options.shards, checkpoints)))
        return 0
    experiment = resolve(options.id, rows, checkpoint=checkpoints.get(options.id))
    return run_job(experiment, options.job, options.workdir, options.scale, options.framework, options.shards)


def _checkpoints(arguments: Sequence[str]) -> Checkpoints:
    pairs = [argument.partition("=") for argument in arguments]
    if wrong := [argument for argument, (row_id, _, file) in zip(arguments, pairs, strict=True) if not file]:
        raise UsageError(f"--checkpoint {wrong[0]}: expected ID=FILE")
    return {row_id: Path(file) for row_id, _, file in pairs}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(arguments))


if __name__ == "__main__":
    sys.exit(main())
