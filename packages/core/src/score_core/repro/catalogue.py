"""Every value of all tables with what became of it: what the page over all runs tells, before it is HTML.

    Paper -> Group (a published table or an experiment) -> Block (one run's lines, or a table's) -> Line (one value)

A line's status is the verdict of the run that says most about it (full scale before smoke, then the newest), or that it
was not run or cannot be run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from score_core.errors import UserError
from score_core.repro.cite import BIBTEX
from score_core.repro.compare import UNVERIFIED, Comparison, compare
from score_core.repro.outcome import Outcome, gather
from score_core.repro.page_parts import NOT_RUN, NOT_RUNNABLE
from score_core.repro.resolve import resolve, why_not
from score_core.repro.runner import read_record
from score_core.repro.schema import Experiment, Published, Reference, Row


@dataclass(frozen=True)
class Run:
    """A work folder and what came out of it."""

    workdir: Path
    outcome: Outcome


@dataclass(frozen=True)
class Line:
    """One value of a table or of an experiment."""

    row: Published | Experiment
    reference: Reference | None  # None: not runnable
    comparison: Comparison | None  # None: not run
    status: str
    reason: str
    recipe: Experiment | None = None
    runs: tuple[Run, ...] = ()  # the one that the status comes from first

    @property
    def metric(self) -> str:
        """The name of the metric."""
        if isinstance(self.row, Published) or self.reference is None:
            return getattr(self.row, "metric", "")
        return self.reference.metric

    @property
    def runnable(self) -> str:
        """Whether it can be run: yes, compare, external, or no."""
        if self.reference is not None:
            return "yes"
        return self.row.runnable if isinstance(self.row, Published) and self.row.runnable != "yes" else "no"

    @property
    def unverified(self) -> bool:
        """Whether the published value was recalled and not seen."""
        return isinstance(self.row, Published) and self.row.certainty == UNVERIFIED


@dataclass(frozen=True)
class Block:
    """The lines of one run of an experiment, or of a published table."""

    lines: list[Line]
    run: Run | None = None


@dataclass(frozen=True)
class Group:
    """A published table (``experiment`` is None) or an experiment."""

    title: str
    blocks: list[Block]
    experiment: Experiment | None = None

    @property
    def lines(self) -> list[Line]:
        """All lines of all blocks."""
        return [line for block in self.blocks for line in block.lines]


@dataclass(frozen=True)
class Paper:
    """A paper with its experiments, then its tables."""

    name: str  # title (venue year)
    groups: list[Group] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)  # of published rows

    @property
    def lines(self) -> list[Line]:
        """All lines of all groups."""
        return [line for group in self.groups for line in group.lines]


def load_runs(workdirs: Sequence[Path], rows: Sequence[Row]) -> tuple[list[Run], list[str]]:
    """The runs in ``workdirs``, those that say most first, and why folders were left out."""
    runs, problems = [], []
    for workdir in workdirs:
        try:
            record = read_record(workdir)
            runs.append(Run(workdir, gather(resolve(record.id, rows), record, workdir)))
        except UserError as error:
            problems.append(f"{workdir}: {error}")
    runs.sort(key=lambda run: (run.outcome.record.scale == "full", _started(run)), reverse=True)
    return runs, problems


def _started(run: Run) -> str:
    return max((attempt.utc for attempt in run.outcome.record.attempts), default="")


def catalogue(rows: Sequence[Row], runs: Sequence[Run]) -> list[Paper]:
    """All rows with the runs that concern them, paper by paper in the order of their years.

    Arguments:
        rows: of all packages.
        runs: from :func:`load_runs`.
    """
    names = dict.fromkeys(row.paper for row in rows)
    papers = {name: Paper(name) for name in [*(name for name in BIBTEX if name in names), *names]}
    for row in rows:
        if isinstance(row, Experiment):
            papers[row.paper].groups.append(_experiment_group(row, runs))
    tables: dict[tuple[str, str], Group] = {}
    for row in rows:
        if isinstance(row, Published):
            if (row.paper, row.table) not in tables:
                tables[row.paper, row.table] = Group(row.table, [Block([])])
                papers[row.paper].groups.append(tables[row.paper, row.table])
            tables[row.paper, row.table].blocks[0].lines.append(_published_line(row, rows, runs))
    papers_of = {row.id: row.paper for row in rows if isinstance(row, Published)}
    for run in runs:
        if run.outcome.record.id in papers_of:
            papers[papers_of[run.outcome.record.id]].runs.append(run)
    return list(papers.values())


def _experiment_group(row: Experiment, runs: Sequence[Run]) -> Group:
    own = [run for run in runs if run.outcome.record.id == row.id]
    blocks = [
        Block([Line(row, c.reference, c, c.verdict, c.reason, row, (run,)) for c in run.outcome.comparisons], run)
        for run in own
    ]
    if not own:
        blocks.append(Block([Line(row, reference, None, NOT_RUN, "", row) for reference in row.metrics]))
    return Group(row.title, blocks, row)


def _published_line(row: Published, rows: Sequence[Row], runs: Sequence[Run]) -> Line:
    reason = why_not(row)
    if reason is not None:
        return Line(row, None, None, NOT_RUNNABLE, reason)
    recipe = resolve(row.id, rows)
    (reference,) = recipe.metrics
    # Rows that the same commands yield share their runs: FID and Inception Score of one set of samples.
    own = [run for run in runs if run.outcome.record.id == row.id or run.outcome.experiment.stages == recipe.stages]
    judged = [(_compare(reference, run), run) for run in own]
    if not judged:
        return Line(row, reference, None, NOT_RUN, "", recipe)
    judged.sort(key=lambda pair: pair[0].measured is None)  # stable: the order of the runs otherwise
    comparison = judged[0][0]
    runs_of_row = tuple(run for _, run in judged)
    return Line(row, reference, comparison, comparison.verdict, comparison.reason, recipe, runs_of_row)


def _compare(reference: Reference, run: Run) -> Comparison:
    record = run.outcome.record
    full_scale = record.scale == "full" or reference.claim is not None  # words are never compared with a number
    return compare(reference, run.outcome.results, full_scale=full_scale, missing=record.missing)
