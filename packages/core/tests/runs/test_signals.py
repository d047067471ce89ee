"""Stopping by real signals to real processes."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from score_core.runs.signals import GracefulStop, StopRequested

# A run whose steps take a while, with a "checkpoint" at the end of the step in which the signal came.
RUN = """
import sys, time
from score_core.errors import run_main
from score_core.runs.signals import GracefulStop

def main():
    with GracefulStop() as stop:
        for step in range(100):
            print("begin", step, flush=True)
            end = time.monotonic() + float(sys.argv[1])
            while time.monotonic() < end:
                time.sleep(0.01)
            print("end", step, flush=True)
            if stop.requested:
                print("saved", stop.signal.name, flush=True)
                stop.exit()

sys.exit(run_main(main))
"""


@pytest.fixture
def start():
    started = []

    def start(step_seconds):
        command = [sys.executable, "-c", RUN, str(step_seconds)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begin 0\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_step_is_finished_the_checkpoint_written_and_the_status_tells_the_signal(start, number, status):
    process = start(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert out == f"end 0\nsaved {number.name}\n"
    assert process.returncode == status
    assert err == f"\n{number.name}: finishing the step and saving; Ctrl-C (again) stops at once\n"


def test_repeated_sigterm_changes_nothing(start):
    process = start(0.5)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    out, _ = process.communicate(timeout=30)
    assert out == "end 0\nsaved SIGTERM\n"
    assert process.returncode == 143


def test_the_second_ctrl_c_stops_at_once(start):
    process = start(60)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"  # the first one was seen
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert out == ""
    assert err.endswith("interrupted\n")
    assert process.returncode == 130


def test_the_old_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with GracefulStop() as stop:
        assert signal.getsignal(signal.SIGTERM) not in before
        assert not stop.requested
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_inside_the_process_the_flag_and_the_exit_carry_the_signal(capfd):
    with GracefulStop() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert stop.signal is signal.SIGTERM
        with pytest.raises(StopRequested) as caught:
            stop.exit()
    assert caught.value.code == 143
    assert "SIGTERM" in capfd.readouterr().err


def test_exit_without_a_signal_is_a_programming_error():
    with GracefulStop() as stop, pytest.raises(RuntimeError, match="no signal"):
        stop.exit()


def test_outside_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with GracefulStop() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
