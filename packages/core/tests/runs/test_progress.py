"""A bar on a terminal, log lines elsewhere."""

import fcntl
import io
import logging
import os
import pty
import select
import struct
import termios

import pytest

from score_core.runs.progress import Progress


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_without_a_terminal_lines_appear_now_and_then(caplog):
    clock, stream = Clock(), io.StringIO()
    caplog.set_level(logging.INFO)
    with Progress(
        100, initial=20, description="train", stream=stream, clock=clock, seconds_between_lines=10
    ) as progress:
        for step in range(50):
            clock.now += 0.5
            values = {"loss": 0.25} if step == 30 else {}
            progress.update(1, **values)
    assert stream.getvalue() == ""
    assert messages(caplog) == [
        "train: step 40/100 (40.0%), 2 step/s, 0:00:30 left",
        "train: step 60/100 (60.0%), 2 step/s, 0:00:20 left, loss 0.25",
        "train: step 70/100 (70.0%), 2 step/s, 0:00:15 left, loss 0.25",
    ]


def test_the_last_line_is_not_repeated_and_nothing_done_is_no_line(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    with Progress(7200, stream=io.StringIO(), clock=clock, unit="image") as progress:
        clock.now += 60
        progress.update(60)
    with Progress(10, stream=io.StringIO(), clock=clock):
        pass
    assert messages(caplog) == ["image 60/7200 (0.8%), 1 image/s, 1:59:00 left"]


def test_an_unknown_total_has_no_time_left(caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()
    with Progress(None, stream=io.StringIO(), clock=clock) as progress:
        clock.now += 2
        progress.update(3)
    assert messages(caplog) == ["step 3, 1.5 step/s"]


def test_the_state_is_counted_in_both_forms():
    with Progress(None, initial=5, stream=io.StringIO()) as progress:
        progress.update(2)
        progress.update()
    assert progress.step == 8


@pytest.fixture
def terminal():
    """The two ends of a terminal 100 columns wide: a file descriptor to read, a stream to write."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(child, "w") as stream:
        yield parent, stream
    os.close(parent)


def shown(parent):
    """What has been written to the terminal since the last look; a read gives a part of it only."""
    text = b""
    while select.select([parent], [], [], 0.2)[0]:
        text += os.read(parent, 100_000)
    return text


def test_on_a_terminal_a_bar_is_drawn_with_rate_and_values_and_no_lines(caplog, terminal):
    caplog.set_level(logging.INFO)
    parent, stream = terminal
    with Progress(10, initial=2, description="sample", stream=stream) as progress:
        for _ in range(8):
            progress.update(loss=3.5)
    text = shown(parent).decode()
    last = text.rstrip().split("\r")[-1]
    assert last.startswith("sample: 100%|")
    assert "10/10" in last
    assert "loss=3.5" in last
    assert "step/s" in last
    assert "2/10" in text.split("\r")[1]
    assert messages(caplog) == []


def test_the_bar_is_closed_when_the_loop_fails(terminal):
    parent, stream = terminal
    with pytest.raises(ZeroDivisionError), Progress(10, stream=stream) as progress:
        progress.update()
        raise ZeroDivisionError
    assert shown(parent).endswith(b"\n")  # left standing, the next output begins below it
    progress.update()
    assert shown(parent) == b""  # and drawn no more
