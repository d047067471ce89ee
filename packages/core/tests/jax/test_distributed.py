"""Processes that cannot find each other say who is missing, before JAX's own start would abort them."""

import contextlib
import socket
import threading

import pytest

from score_core.errors import UsageError, UserError
from score_core.jax.distributed import Distributed, ProcessLostError, use_scheduler_rank


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def test_process_0_names_those_who_did_not_come():
    with pytest.raises(ProcessLostError, match=r"process 1, 2 of 3 did not come within 0\.3 seconds"):
        Distributed(f"127.0.0.1:{free_port()}", 3, 0, timeout=0.3).__enter__()


def test_the_others_say_that_process_0_did_not_come():
    with pytest.raises(ProcessLostError, match=r"process 1 could not reach process 0 at 127\.0\.0\.1"):
        Distributed(f"127.0.0.1:{free_port()}", 2, 1, timeout=0.3).__enter__()


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on port {port}.*another port"):
            Distributed(f"127.0.0.1:{port}", 2, 0, timeout=5).__enter__()


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(1, 2)], "process 1 of 2 reported to a run of 3 processes"),
        ([(1, 3), (1, 3)], "has a process of this number already"),
    ],
)
def test_processes_that_disagree_all_end_with_the_reason(others, message):
    coordinator, errors = f"127.0.0.1:{free_port()}", []

    def start(process_id, count):
        try:
            Distributed(coordinator, count, process_id, timeout=10).__enter__()
        except UserError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=start, args=other) for other in others]
    for thread in threads:
        thread.start()
    with pytest.raises(UsageError, match=message):
        Distributed(coordinator, 3, 0, timeout=10).__enter__()
    for thread in threads:
        thread.join(20)
    assert len(errors) == len(others)
    assert all(message in error for error in errors)


def test_a_stranger_on_the_port_is_not_taken_for_a_process():
    port = free_port()

    def knock():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")

    knocking = threading.Timer(0.2, knock)
    knocking.start()
    with pytest.raises(ProcessLostError, match="process 1 of 2 did not come"):
        Distributed(f"127.0.0.1:{port}", 2, 0, timeout=1).__enter__()
    knocking.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1", 2, 0), "HOST:PORT"),
        (("node:99999", 2, 0), "HOST:PORT"),
        (("node:1234", 2, 2), "process number 2 of 2"),
        (("node:1234", None, 0), "number of processes"),
        ((None, None, None), "neither Slurm"),
    ],
)
def test_impossible_values_are_refused(arguments, message, monkeypatch):
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=message):
        Distributed(*arguments).__enter__()


def test_slurm_and_open_mpi_say_who_this_is(monkeypatch):
    with pytest.raises(UsageError, match="neither Slurm"):
        use_scheduler_rank()
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
    for name, value in zip(names, "561", strict=True):
        monkeypatch.setenv(name, value)
    assert use_scheduler_rank() == (5, 6)
    for name, value in zip(("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), "380", strict=True):
        monkeypatch.setenv(name, value)
    assert use_scheduler_rank() == (3, 8)
