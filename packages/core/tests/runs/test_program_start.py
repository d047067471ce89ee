"""Folders and consent."""

import io
import logging

import pytest

from score_core.errors import UsageError
from score_core.runs.program_start import confirm, folder_inside, log_level, remove_folder


def test_names_stay_below_their_root(tmp_path):
    assert folder_inside(tmp_path, "a/b", "--doc") == tmp_path / "a/b"
    for name in ("", " ", ".", "..", "a/../..", str(tmp_path.parent)):
        with pytest.raises(UsageError, match="--doc"):
            folder_inside(tmp_path, name, "--doc")


def test_a_link_out_of_the_root_is_no_folder_below_it(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError):
        folder_inside(tmp_path / "root", "link", "--doc")


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("Y", True), ("yes", False), ("n", False), ("", False)])
def test_only_y_is_yes(answer, agreed):
    assert confirm("Overwrite?", cure="give --ni", ask=lambda question: answer) is agreed


def test_nobody_is_asked_without_a_terminal_or_with_the_flag(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="no terminal to answer at: give --ni"):
        confirm("Overwrite?", cure="give --ni")
    assert confirm("Overwrite?", cure="", yes=True)


def test_levels():
    assert log_level("Info") == logging.INFO
    for name in ("loud", "getLogger", "raiseExceptions"):
        with pytest.raises(UsageError, match="--verbose"):
            log_level(name)


def test_removing_a_link_keeps_what_it_points_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_folder(tmp_path / "link")
    remove_folder(tmp_path / "absent")
    assert (tmp_path / "kept" / "file").exists() and not (tmp_path / "link").exists()
