"""The log file and the console: layout, appending, no line twice."""

import logging
import re
import subprocess
import sys

import pytest
from tqdm import tqdm

from score_core.errors import UserError
from score_core.runs.log import RunLog

RECORD = r"INFO - test_log\.py - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - "


@pytest.fixture(autouse=True)
def root_is_left_as_it_was():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    assert (root.level, list(root.handlers)) == before


def test_lines_have_the_originals_layout_in_the_file_and_on_the_console(tmp_path, capsys):
    with RunLog(tmp_path / "run" / "stdout.txt"):
        logging.getLogger("score_core.any").info("step: %d, training_loss: %.5e", 50, 90.68371)
        logging.getLogger("score_core.any").debug("not shown")
    text = (tmp_path / "run" / "stdout.txt").read_text()
    assert re.fullmatch(RECORD + r"step: 50, training_loss: 9\.06837e\+01\n", text)
    assert capsys.readouterr() == ("", text)


def test_a_resumed_run_appends(tmp_path):
    for message in ("first", "second"):
        with RunLog(tmp_path / "stdout.txt"):
            logging.info(message)
    lines = (tmp_path / "stdout.txt").read_text().splitlines()
    assert [line.rsplit(" - ")[-1] for line in lines] == ["first", "second"]


def test_after_closing_nothing_is_written(tmp_path, capsys):
    with RunLog(tmp_path / "stdout.txt"):
        pass
    logging.getLogger().warning("late")
    assert (tmp_path / "stdout.txt").read_text() == ""
    assert "late" not in capsys.readouterr().err


def test_nested_logs_and_other_console_handlers_do_not_repeat_lines(tmp_path, capsys):
    other = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(other)
    try:
        with RunLog(tmp_path / "stdout.txt"), RunLog(tmp_path / "stdout.txt"):
            logging.info("once")
        assert (tmp_path / "stdout.txt").read_text().count("once") == 1
        assert capsys.readouterr().err.count("once") == 1
    finally:
        logging.getLogger().removeHandler(other)


def test_without_a_file_or_without_the_console(tmp_path, capsys):
    with RunLog(None):
        logging.info("console only")
    assert "console only" in capsys.readouterr().err
    with RunLog(tmp_path / "stdout.txt", console=False):
        logging.info("file only")
    assert "file only" in (tmp_path / "stdout.txt").read_text()
    assert capsys.readouterr().err == ""


def test_a_progress_bar_does_not_cut_a_line(tmp_path, capsys):
    with RunLog(tmp_path / "stdout.txt"), tqdm(total=10, file=sys.stderr) as bar:
        bar.update(3)
        logging.info("between")
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert sum(re.fullmatch(RECORD + "between", line) is not None for line in lines) == 1
    assert "between" in (tmp_path / "stdout.txt").read_text()


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot open the log file .*stdout\.txt"),
        RunLog(tmp_path / "file" / "stdout.txt"),
    ):
        pass


ABSL = """
import logging, sys
from absl import app, logging as absl_logging
from score_core.runs.log import RunLog

def main(argv):
    with RunLog(argv[1]):
        absl_logging.info("from absl %d", 1)
        absl_logging.warning("from absl %d", 2)
        logging.getLogger("other").info("from logging")
    absl_logging.warning("afterwards")
    print(len(logging.getLogger().handlers))

app.run(main)
"""


def test_absl_programs_log_through_it_once(tmp_path):
    command = [sys.executable, "-c", ABSL, tmp_path / "stdout.txt"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (tmp_path / "stdout.txt").read_text()
    messages = [line.split(" - ")[-1] for line in text.splitlines()]
    assert messages == ["from absl 1", "from absl 2", "from logging"]
    # absl finds the caller itself: the file named is the program, not absl's own.
    assert {tuple(line.split(" - ")[:2]) for line in text.splitlines()} == {
        ("INFO", "<string>"),
        ("WARNING", "<string>"),
    }
    assert run.stderr.startswith(text)
    assert re.fullmatch(r"W\d{4} .*\] afterwards\n", run.stderr[len(text) :])
    assert run.stdout == "1\n"
