"""The losses of a run as a file: what a resumed or killed run makes of it."""

import pytest

from score_core.errors import UserError
from score_core.runs.history import History, HistoryRow, read_history


def test_rows_are_appended_and_read_back(tmp_path):
    file = tmp_path / "history.csv"
    history = History(file, resume_at=0)
    history.add(0, training_loss=1.25)
    history.add(0, eval_loss=2.5)
    rows = read_history(file)
    assert [row[:3] for row in rows] == [(0, 1.25, None), (0, None, 2.5)]
    assert all(row.seconds >= 0 for row in rows)


def test_a_resumed_run_drops_what_it_will_write_again_and_a_broken_last_row(tmp_path):
    file = tmp_path / "history.csv"
    file.write_text("step,training_loss,eval_loss,seconds\n0,1,,10.0\n5,0.5,,20.0\n6,0.4,,21.0\n7,0.")
    history = History(file, resume_at=6)
    history.add(6, training_loss=0.3)
    rows = read_history(file)
    assert [row.step for row in rows] == [0, 5, 6]
    assert rows[-1].training_loss == 0.3
    assert rows[-1].seconds >= 20.0  # the clock goes on


def test_the_held_out_loss_of_an_interrupted_step_is_dropped_and_its_training_loss_kept(tmp_path):
    file = tmp_path / "history.csv"
    file.write_text("step,training_loss,eval_loss,seconds\n4,1,,1.0\n4,,2,1.0\n6,1,,1.0\n6,,2,1.0\n7,1,,1.0\n")
    History(file, resume_at=7, evaluate_at=6)
    assert [row[:3] for row in read_history(file)] == [(4, 1.0, None), (4, None, 2.0), (6, 1.0, None)]


def test_no_file_has_no_rows_and_no_path_writes_none(tmp_path):
    assert read_history(tmp_path / "history.csv") == []
    History(None, resume_at=0).add(1, training_loss=1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,training_loss,eval_loss,seconds\n1,x,,3\n"])
def test_another_file_is_refused_and_kept(tmp_path, text):
    file = tmp_path / "history.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"history\.csv"):
        History(file, resume_at=0)
    assert file.read_text() == text


def test_a_row_is_one_line():
    assert HistoryRow(3, None, 0.5, 1.26).line() == "3,,0.5,1.3\n"
