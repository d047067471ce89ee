"""The ``repro`` command: list the published tables' rows, rerun one, and compare.

    repro list [--paper TEXT] [--table TEXT] [--metric NAME] [--runnable]
    repro show ID
    repro plan ID [--framework jax|torch] [--checkpoint FILE | --train] [--no-probe]
    repro run ID [--workdir DIR] [--scale smoke|full] [--framework jax|torch] [--checkpoint FILE | --train]
    repro report [WORKDIR ...] [--all [-o FILE]]
    repro compare A B
    repro sanity [WORKDIR] [--samples PATH ... --statistics FILE]
    repro cite ID

Exit status of ``run``: 0 every metric reproduced (or, at smoke scale, measured), 3 one deviates, 4 none deviates but
one is missing or not comparable, 2 something it needs is missing, so that nothing was run (which ``verdict.json``
records); a stage that fails passes on its own status. ``plan`` ends with 0, or 2 if something is missing. Of everything
else: 0, or 2 for a wrong command line.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from score_core.errors import UsageError, run_main
from score_core.repro import compare_command, printing, sanity_command
from score_core.repro.cite import bibtex
from score_core.repro.compare import Verdict
from score_core.repro.outcome import Outcome, gather
from score_core.repro.planning import Plan, describe, make_plan, times_of
from score_core.repro.report import write_report
from score_core.repro.report_all import report_all
from score_core.repro.resolve import resolve, why_not
from score_core.repro.runner import RECORD, SCALES, default_workdir, read_record, record_missing, run_stages
from score_core.repro.schema import Experiment, Published, Row
from score_core.repro.tables import find_row, load_all

EXIT_CODES = {
    Verdict.REPRODUCED: 0,
    Verdict.DEVIATES: 3,
    Verdict.MISSING: 4,
    Verdict.NOT_COMPARABLE: 4,
    Verdict.MISSING_INPUT: 2,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    try:
        status = run_main(lambda: _main(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `repro list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 128 + signal.SIGPIPE
    return status


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.run
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repro", description="Rerun published results and compare. Rows are named package/...; see `repro list`."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    listing = commands.add_parser("list", help="list rows", description="List rows, one a line.")
    listing.add_argument("--paper", metavar="TEXT", help="only rows of a package or paper with this in its name")
    listing.add_argument("--table", metavar="TEXT", help="only rows of a table with this in its name")
    listing.add_argument("--metric", metavar="NAME", help="only rows with this metric")
    listing.add_argument("--runnable", action="store_true", help="only rows that `repro run` can run")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="print everything known about a row")
    show.add_argument("id", metavar="ID")
    show.set_defaults(run=_show)

    plan = commands.add_parser("plan", help="what a run needs, what of it is here, and how long it takes")
    _add_choices(plan)
    plan.add_argument("--no-probe", dest="probe", action="store_false", help="recorded times, nothing is measured")
    plan.set_defaults(run=_plan)

    run = commands.add_parser("run", help="run an experiment or a published cell, and compare its results")
    _add_choices(run)
    run.add_argument(
        "--workdir", type=Path, metavar="DIR", help="where to work (default: runs/ID); resumed if it exists"
    )
    run.add_argument(
        "--scale", choices=SCALES, default="full", help="smoke: a minute or two, shows that everything works"
    )
    run.set_defaults(run=_run)

    report = commands.add_parser("report", help="write the reports of runs anew, without running anything")
    report.add_argument("workdir", nargs="*", type=Path, help="default: every run below the folder runs")
    report.add_argument("--all", action="store_true", help="one page over all tables and the runs instead")
    report.add_argument("-o", "--output", type=Path, metavar="FILE", help="of --all (default: runs/report.html)")
    report.set_defaults(run=_report)

    compare_command.add_command(commands)
    sanity_command.add_command(commands)

    cite = commands.add_parser("cite", help="print the BibTeX entry of the paper behind a row")
    cite.add_argument("id", metavar="ID")
    cite.set_defaults(run=_cite)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "--framework", choices=("jax", "torch"), help="of programs that know both; default: the program's own"
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="evaluate this model, of any format that score-convert reads (default: the authors', if it is here)",
    )
    model.add_argument("--train", action="store_true", help="train the model first")


def _list(options: argparse.Namespace) -> int:
    rows = [row for row in load_all() if _selected(row, options)]
    print(printing.listing(rows) if rows else "No row matches.")
    return 0


def _selected(row: Row, options: argparse.Namespace) -> bool:
    table = row.table if isinstance(row, Published) else ""
    metrics = [row.metric] if isinstance(row, Published) else [reference.metric for reference in row.metrics]
    paper = f"{row.id.split('/')[0]} {row.paper}"
    return (
        (options.paper is None or options.paper.lower() in paper.lower())
        and (options.table is None or options.table.lower() in table.lower())
        and (options.metric is None or options.metric.lower() in metrics)
        and (not options.runnable or why_not(row) is None)
    )


def _show(options: argparse.Namespace) -> int:
    print(printing.details(find_row(load_all(), options.id)))
    return 0


def _make_plan(options: argparse.Namespace, scale: str) -> Plan:
    choices = {"framework": options.framework, "checkpoint": options.checkpoint, "train": options.train}
    return make_plan(options.id, load_all(), scale=scale, **choices)


def _plan(options: argparse.Namespace) -> int:
    plan, rows = _make_plan(options, "full"), load_all()
    print(describe(plan, find_row(rows, options.id), times_of(plan, rows, options.probe)))
    return EXIT_CODES[Verdict.MISSING_INPUT] if plan.missing else 0


def _run(options: argparse.Namespace) -> int:
    plan = _make_plan(options, options.scale)
    experiment, checkpoint = plan.experiment, plan.checkpoint
    workdir: Path = options.workdir or default_workdir(experiment, options.scale, options.framework)
    if options.scale == "full" and plan.missing:
        record_missing(experiment, workdir, plan.missing, options.framework, checkpoint)
        _write(workdir, experiment)
        missing = "\n".join(f"  {need}" for need in plan.missing)
        print(f"error: nothing was run, for this is missing:\n{missing}", file=sys.stderr)
        return EXIT_CODES[Verdict.MISSING_INPUT]
    exit_code = run_stages(
        experiment,
        workdir,
        options.scale,
        lambda line: print(f"repro: {line}", flush=True),
        options.framework,
        checkpoint,
    )
    if exit_code != 0:
        print(f"error: a stage ended with status {exit_code}. The same command resumes it.", file=sys.stderr)
        return exit_code
    outcome = _write(workdir, experiment)
    if options.scale == "smoke":
        unmeasured = any(c.verdict is Verdict.MISSING for c in outcome.comparisons)
        return EXIT_CODES[Verdict.MISSING] if unmeasured else 0
    return EXIT_CODES[outcome.verdict]


def _report(options: argparse.Namespace) -> int:
    workdirs: list[Path] = options.workdir or sorted(file.parent for file in Path("runs").rglob(RECORD))
    if options.all:
        return report_all(workdirs, load_all(), options.output or Path("runs/report.html"))
    if options.output:
        raise UsageError("--output belongs to --all; without it each run's report is written into its own folder.")
    if not workdirs:
        raise UsageError("There is no run below the folder runs. Name a work folder, or make one with `repro run ID`.")
    for workdir in workdirs:
        _write(workdir, resolve(read_record(workdir).id, load_all()))
    return 0


def _cite(options: argparse.Namespace) -> int:
    print(bibtex(find_row(load_all(), options.id).paper))
    return 0


def _write(workdir: Path, experiment: Experiment) -> Outcome:
    """Write the report of a finished run and print its verdicts."""
    outcome = gather(experiment, read_record(workdir), workdir)
    page = write_report(outcome, workdir)
    print(printing.verdicts(outcome))
    print(f"Report: {page}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
