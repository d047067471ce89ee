"""Running stages: command lines, the record, failure, and signals."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from score_core.errors import UsageError, UserError
from score_core.repro.runner import RECORD, default_workdir, read_record, run_stages, stage_command
from score_core.repro.schema import Experiment

STUB = """
import os, signal, sys, time
from pathlib import Path
arguments = sys.argv[1:]
workdir = Path(arguments[arguments.index("--workdir") + 1])
mode = arguments[-1]
with open(workdir / "calls.txt", "a") as file:
    print(*arguments, sep="|", file=file)
if (workdir / "wait").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (workdir / "ready").touch()
    time.sleep(60)
if (workdir / f"kill_{mode}").exists():
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(5 if (workdir / f"fail_{mode}").exists() else 0)
"""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, whose name has a space, with the stub module importable by child processes."""
    (tmp_path / "stub_stage.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "a run"
    folder.mkdir()
    return folder


def silent(_: str) -> None:
    pass


def calls(workdir: Path) -> list[str]:
    return (workdir / "calls.txt").read_text().splitlines()


def test_command_lines(experiment: Experiment, tmp_path: Path):
    workdir = tmp_path / "with space"
    base = [sys.executable, "-m", "stub_stage", "--workdir", str(workdir), "--mode", "train"]
    assert stage_command(experiment, "train", workdir, "full") == base
    assert stage_command(experiment, "train", workdir, "smoke") == [*base, "--small", "--note", "two words"]
    assert stage_command(experiment, "train", workdir, "full", "torch") == [*base, "--framework", "torch"]


def test_default_folders_keep_scales_apart(experiment: Experiment):
    assert default_workdir(experiment, "full") == Path("runs/score_sde/tiny")
    assert default_workdir(experiment, "smoke") == Path("runs/score_sde/tiny-smoke")
    assert default_workdir(experiment, "smoke", "torch") == Path("runs/score_sde/tiny-torch-smoke")


def test_a_folder_keeps_its_framework(experiment: Experiment, workdir: Path):
    (workdir / "fail_torch").touch()
    assert run_stages(experiment, workdir, "full", silent, "torch") == 5
    assert read_record(workdir).framework == "torch"
    assert read_record(workdir).attempts[0].command[-2:] == ["--framework", "torch"]
    for other in (None, "jax"):
        with pytest.raises(UsageError, match="was started with --framework torch"):
            run_stages(experiment, workdir, "full", silent, other)


def test_stages_run_in_order_and_are_recorded(experiment: Experiment, workdir: Path):
    lines: list[str] = []
    assert run_stages(experiment, workdir, "full", lines.append) == 0
    assert calls(workdir) == [f"--workdir|{workdir}|--mode|{mode}" for mode in ("train", "eval")]
    assert [line.split(":")[0] for line in lines] == ["train", "eval"]
    record = read_record(workdir)
    assert (record.id, record.scale) == (experiment.id, "full")
    assert [(attempt.stage, attempt.exit_code) for attempt in record.attempts] == [("train", 0), ("eval", 0)]
    assert all(attempt.seconds > 0 and attempt.command[1:3] == ["-m", "stub_stage"] for attempt in record.attempts)


def test_a_failing_stage_stops_the_run_and_a_second_run_continues(experiment: Experiment, workdir: Path):
    (workdir / "fail_train").touch()
    assert run_stages(experiment, workdir, "full", silent) == 5
    assert len(calls(workdir)) == 1
    (workdir / "fail_train").unlink()
    assert run_stages(experiment, workdir, "full", silent) == 0
    codes = [(attempt.stage, attempt.exit_code) for attempt in read_record(workdir).attempts]
    assert codes == [("train", 5), ("train", 0), ("eval", 0)]


def test_a_killed_stage_has_the_status_that_shells_give_it(experiment: Experiment, workdir: Path):
    (workdir / "kill_eval").touch()
    assert run_stages(experiment, workdir, "full", silent) == 128 + signal.SIGKILL


def test_a_signal_is_passed_on_and_the_stages_own_end_is_waited_for(experiment: Experiment, workdir: Path, raw: dict):
    (workdir / "wait").touch()
    program = (
        "import sys, json; from pathlib import Path\n"
        "from score_core.repro.schema import parse_rows; from score_core.repro.runner import run_stages\n"
        "row, = parse_rows([json.loads(sys.argv[1])], package='score_sde', source='x')\n"
        "sys.exit(run_stages(row, Path(sys.argv[2]), 'full', print))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, json.dumps(raw), str(workdir)])
    for _ in range(200):
        if (workdir / "ready").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert [(a.stage, a.exit_code) for a in read_record(workdir).attempts] == [("train", 143)]


@pytest.mark.parametrize("change", [{"scale": "smoke"}, {"id": "score_sde/other"}])
def test_a_folder_of_another_run_is_refused(experiment: Experiment, workdir: Path, change: dict):
    run_stages(experiment, workdir, "full", silent)
    record = json.loads((workdir / RECORD).read_text()) | change
    (workdir / RECORD).write_text(json.dumps(record))
    with pytest.raises(UsageError, match=f"holds {record['id']} at scale {record['scale']}, not score_sde/tiny"):
        run_stages(experiment, workdir, "full", silent)


def test_a_missing_record_and_a_damaged_one(tmp_path: Path):
    with pytest.raises(UsageError, match=r"holds no run: there is no repro\.json"):
        read_record(tmp_path)
    (tmp_path / RECORD).write_text('{"id": "x"')
    with pytest.raises(UserError, match="Cannot read"):
        read_record(tmp_path)
