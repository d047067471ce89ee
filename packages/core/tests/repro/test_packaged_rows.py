"""Every row of the packaged tables: its id is the known one, its commands are ones that the package's program takes.

The programs parse their command lines, load their configurations and apply the overrides as ever; only what they would
then compute is left out (`programs`).
"""

import hashlib
import importlib
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from score_core.errors import UserError
from score_core.repro.recipes import TRAIN
from score_core.repro.resolve import CHECKPOINT, compile_row, resolve, why_not
from score_core.repro.runner import SCALES, stage_command
from score_core.repro.schema import Experiment, Published
from score_core.repro.tables import PACKAGES, load_all, load_package

# Ids are addresses: folders of results, links and papers name them. Number of rows and hash of their sorted ids.
IDS = {
    "ncsn": (33, "674bb9190775e1c7"),
    "ncsnv2": (44, "2249bfb13a75f101"),
    "score_sde": (109, "706a7f8475f8a308"),
    "variational_sde": (11, "89a2368e401b9cb1"),
    "score_flow_hdsm": (150, "a8ddc932ab049e85"),
}

ROWS = load_all()
RUNNABLE = [row for row in ROWS if why_not(row) is None]


class CommandError(Exception):
    """A command that its program does not take."""


def _no_computation(*_args: Any, **_options: Any) -> None:
    pass


def _open_ncsn(args: Any) -> None:
    """What ncsn does with its options, and that it knows them."""
    from ncsn.config import PACKAGED, complete, load_config, set_options
    from score_core.runs.namespace_config import load_namespace, to_dict

    known: set[str] = set()
    for file in PACKAGED.glob("*.yml"):
        config = load_namespace(file)
        complete(config)
        known |= {f"{section}.{key}" for section, values in to_dict(config).items() for key in values}
    written = load_config(args.config or "anneal")  # sampling takes the run's own
    set_options(written, args.option)
    if unknown := {option.partition("=")[0] for option in args.option} - known:
        raise CommandError(f"ncsn has no keys {unknown}")


def _open_ncsnv2(args: Any, _ask: Any = None) -> None:
    from ncsnv2.config import check_config, load_config

    check_config(load_config(args.config), "fast_fid" if args.fast_fid else "train")


@pytest.fixture(scope="module")
def programs() -> Any:
    """The programs with nothing behind their command lines."""
    patch = pytest.MonkeyPatch()
    idle = {
        "score_sde.train": ("train",),
        "score_sde.evaluate": ("evaluate", "enabled_stages"),
        "score_sde.generate.run": ("generate",),
        "score_sde.classifier.train": ("run",),
        "score_flow_hdsm.continuation": ("start_from",),
        "score_flow_hdsm.dequantizer_experiment": ("train_deq",),
        "score_flow_hdsm.toy.study": ("study", "reopen"),
        "variational_sde.torch.training": ("train",),
        "variational_sde.torch.debias_study": ("run",),
        "variational_sde.torch.swissroll_study": ("run",),
        "ncsn.toy.figures": ("run",),
    }
    works: dict[str, dict[str, Callable[..., Any]]] = {
        "score_flow_hdsm.experiment": {"experiment_maker": lambda *_: _no_computation},
        "ncsn.start": {"run": _open_ncsn},
        "ncsnv2.start": {"run": _open_ncsnv2},
        **{name: dict.fromkeys(functions, _no_computation) for name, functions in idle.items()},
    }
    for name, functions in works.items():
        module = ModuleType(name)
        for function, work in functions.items():
            setattr(module, function, work)
        patch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        patch.setattr(importlib.import_module(parent), child, module, raising=False)
    patch.setattr(importlib.import_module("score_sde.experiment"), "require_framework", _no_computation)
    # Programs of one study: they parse, and then do everything.
    patch.setattr(importlib.import_module("ncsnv2.ablation"), "_run", _no_computation)
    patch.setattr(importlib.import_module("score_flow_hdsm.orders"), "compare", _no_computation)
    yield
    patch.undo()


def check_command(arguments: list[str]) -> None:
    """Give a command to its program.

    Raises:
        CommandError: the program does not take it.
    """
    python, dash_m, module, *rest = arguments
    assert (python, dash_m) == ("python", "-m")
    if module == "score_core.repro.again":
        from score_core.repro.again import command

        inner, rest = command(rest)
        return check_command(["python", "-m", inner, *rest])
    if module == "score_core.repro.place":
        from score_core.checkpoints.providers import load_config
        from score_core.repro.place import parser

        options = parser().parse_args(rest)
        load_config(options.config or "digits")
        return None
    try:
        program = importlib.import_module(module)
        if hasattr(program, "__path__"):
            program = importlib.import_module(f"{module}.__main__")
        status = program.main(rest)
    except (ImportError, SystemExit) as error:
        raise CommandError(f"{shlex.join(arguments)}: {error!r}") from error
    if status:
        raise CommandError(f"{shlex.join(arguments)} ended with status {status}")
    return None


def check_row(experiment: Experiment, workdir: Path, scales: Sequence[str] = SCALES) -> None:
    """Give every stage of a row to its program.

    Raises:
        CommandError: one is not taken.
    """
    for scale in scales:
        for stage in experiment.stages:
            command = stage_command(experiment, stage, workdir, scale)
            check_command(["python", *command[1:]])
    if experiment.published is not None and any(stage.startswith(TRAIN) for stage in experiment.stages):
        placed = resolve(experiment.id, ROWS, checkpoint=Path("a.pth"))
        check_command(["python", *stage_command(placed, CHECKPOINT, workdir, "full")[1:]])


@pytest.mark.parametrize("package", PACKAGES)
def test_ids_are_unique_and_the_known_ones(package: str):
    ids = sorted(row.id for row in load_package(package))
    assert len(set(ids)) == len(ids)
    assert (len(ids), hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]) == IDS[package]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_row_that_can_run_names_commands_configurations_and_keys_that_exist(
    package: str, programs: None, tmp_path: Path
):
    checked: set[str] = set()
    small: set[str] = set()
    for row in RUNNABLE:
        experiment = resolve(row.id, ROWS)
        key, smoke = repr(experiment.stages), f"{experiment.config} {experiment.smoke}"
        if row.id.startswith(f"{package}/") and key not in checked:
            check_row(experiment, tmp_path, ["full"] if smoke in small else SCALES)
            checked.add(key)
            small.add(smoke)
    assert checked


def test_every_published_row_can_run_or_says_why_in_words_of_its_own():
    nameless = [row.id for row in ROWS if (why_not(row) or "").startswith("no recipe: nobody")]
    assert nameless == []


@pytest.mark.parametrize(
    ("row_id", "change", "culprit"),
    [
        ("score_sde/table3/ncsnpp/fid", {"places": {"config": "ve/shallow", "number": "16"}}, "ve/shallow"),
        ("score_sde/table3/ncsnpp/fid", {"evaluate": {"sampling.snrr": 0.16}}, "snrr"),
        ("score_sde/table3/ncsnpp/fid", {"evaluate": {"sampling.snr": "much"}}, "sampling.snr"),
        ("score_flow_hdsm/hdsm_main/cifar10/ve/first/nll", {"set": {"training.order": 3}}, "order"),
        ("ncsn/table1/ncsn/fid", {"set": {"training.n_iter": 3}}, "training.n_iter"),
        ("ncsn/table1/ncsn/fid", {"places": {"config": "anneal_cifar100", "number": "1"}}, "anneal_cifar100"),
        ("ncsnv2/table1/ncsnv2/cifar10_fid", {"set": {"fast_fid.num_sample": 3}}, "fast_fid.num_sample"),
        ("ncsnv2/table1/ncsnv2/cifar10_fid", {"places": {"config": "cifar100", "number": "1"}}, "cifar100"),
        ("variational_sde/readme_bpd/cifar10/ordering", {"set": {"learning_rate": 3}}, "learning_rate"),
    ],
)
def test_a_row_with_an_unknown_configuration_or_key_is_found_out(
    row_id: str, change: dict[str, Any], culprit: str, programs: None, tmp_path: Path, capfd: Any
):
    row = next(row for row in ROWS if row.id == row_id)
    assert isinstance(row, Published)
    assert row.use is not None
    broken = compile_row(row, replace(row.use, **change))
    with pytest.raises((CommandError, UserError)) as failure:
        check_row(broken, tmp_path)
    said = capfd.readouterr().err
    assert culprit in (said or str(failure.value))


def test_a_row_with_a_broken_command_is_found_out(programs: None, tmp_path: Path, capfd: Any):
    good = resolve("ncsn/fig3/exact/mode_weight_plus5", ROWS)
    for command in ("python -m ncsn.toys figure3", "python -m ncsn.toy figure4 --workdir {workdir}"):
        with pytest.raises(CommandError):
            check_row(replace(good, stages={"figure": command}), tmp_path)
