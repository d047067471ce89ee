"""What a run will do and need: the choice of checkpoint or training, and ``repro plan``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score_core.errors import UsageError
from score_core.repro.formatting import number
from score_core.repro.needs import Need, Published, check_needs, published_checkpoint, trains
from score_core.repro.resolve import resolve
from score_core.repro.schema import Experiment, Row
from score_core.repro.tables import find_row


@dataclass(frozen=True)
class Plan:
    """A row, ready to run.

    ``checkpoint`` is what it evaluates, None if it trains or nothing in it is trained. ``needs`` is everything a run at
    full scale needs.
    """

    experiment: Experiment
    checkpoint: Path | None
    needs: list[Need]

    @property
    def missing(self) -> list[str]:
        """What is not there, with where to put it."""
        return [f"{need.what}: {need.where}" for need in self.needs if not need.present]

    @property
    def trains(self) -> bool:
        """Whether it trains a model first."""
        return self.checkpoint is None and trains(self.experiment)


def make_plan(
    row_id: str,
    rows: Sequence[Row],
    *,
    scale: str = "full",
    framework: str | None = None,
    checkpoint: Path | None = None,
    train: bool = False,
) -> Plan:
    """What `repro run` with these options does.

    At full scale a published cell is computed from ``checkpoint``, else from the authors' checkpoint if that is on this
    machine; ``train`` trains instead. A smoke run always trains, a tiny network.

    Raises:
        UsageError: there is no such row, it cannot be run, or the options do not fit it.
    """
    experiment = resolve(row_id, rows)
    if framework and experiment.frameworks and framework not in experiment.frameworks:
        raise UsageError(f"{row_id} runs with --framework {' or '.join(experiment.frameworks)}, not {framework}.")
    if checkpoint is not None and train:
        raise UsageError("--checkpoint evaluates a model, --train makes one: give one of the two.")
    if checkpoint is not None and scale == "smoke":
        raise UsageError("--scale smoke takes a tiny network of its own: leave out --checkpoint.")
    needs = check_needs(experiment, framework)
    if checkpoint is not None:
        experiment = resolve(row_id, rows, checkpoint=checkpoint)
        needs.append(
            Need(
                "checkpoint",
                checkpoint.exists(),
                str(checkpoint) if checkpoint.exists() else f"there is no file {checkpoint}: correct --checkpoint",
            )
        )
    elif trains(experiment) and not train and scale == "full":
        official = published_checkpoint(row_id)
        needs.append(_official(official))
        checkpoint = official.found
        if checkpoint is not None:
            experiment = resolve(row_id, rows, checkpoint=checkpoint)
    return Plan(experiment, checkpoint, needs)


def _official(official: Published) -> Need:
    if official.found is None:
        return Need("published checkpoint", False, official.cure)
    return Need("published checkpoint", True, str(official.found))


def describe(plan: Plan, row: Row, times: Sequence[str]) -> str:
    """A plan for people."""
    experiment = plan.experiment
    lines = [f"{experiment.id}: {experiment.title}", "", "Needs"]
    lines += [f"  {'present' if need.present else 'MISSING'}  {need.what}: {need.where}" for need in plan.needs]
    if not plan.needs:
        lines.append("  nothing that does not come with the packages")
    if experiment.needs.extractor:
        lines.append("  made here  reference statistics, from the training images, unless they are there")
    lines += ["", "Stages"]
    lines += [f"  {stage}: {command}" for stage, command in experiment.stages.items()]
    lines += ["", "Measures"]
    for reference in experiment.metrics:
        count = "" if reference.count is None else f", {reference.count:,} samples"
        extractor = "" if reference.extractor is None else f", extractor {reference.extractor}"
        dataset = "" if reference.dataset is None else f", on {reference.dataset}"
        value = reference.claim or f"{number(reference.reference)}, tolerance {number(reference.tolerance)}"
        lines.append(f"  {reference.metric}{count}{dataset}{extractor}; reference: {value} ({reference.source})")
    lines += ["", "Time", *(f"  {line}" for line in times)]
    how = "Ready: repro run" if not plan.missing else "Not ready. With everything in place: repro run"
    lines += ["", f"{how} {row.id}"]
    return "\n".join(lines)


def times_of(plan: Plan, rows: Sequence[Row], probe: bool) -> list[str]:
    """Lines on how long it takes, measured on this machine if that is possible."""
    row = find_row(rows, plan.experiment.id)
    if isinstance(row, Experiment) or row.use is None:
        return ["not probed: the experiments take minutes to an hour on a processor; see the package's README"]
    if not probe:
        cost = row.use.recipe.cost
        return [f"recorded ({cost.source}): training {cost.train or 'none'}; evaluation {cost.evaluate or 'not known'}"]
    from score_core.repro.probe import estimate

    return estimate(row, row.use, train=plan.trains or bool(plan.missing and trains(plan.experiment)))
