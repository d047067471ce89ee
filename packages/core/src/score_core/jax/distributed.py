"""Several processes, one run: how they find each other, and how a run ends when one of them does.

Process 0 listens on the coordinator's address; the others report to it with their number. When all have come, JAX's own
service takes over the same port. Meeting first costs milliseconds and gives every process a message that names who did
not come, where JAX's own start would abort each of them with a stack trace.

Once a run is under way, collectives connect the processes. A process that ends breaks the connections of the others,
which then end with an error at their next collective; one that hangs is given up after :data:`HEARTBEAT_TIMEOUT`.
"""

import atexit
import json
import logging
import os
import socket
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import jax

from score_core.errors import UsageError, UserError
from score_core.runs.launch import ProcessLostError, check_rank, parse_address, scheduler_rank

__all__ = ["HEARTBEAT_TIMEOUT", "Distributed", "ProcessLostError", "use_scheduler_rank"]

HEARTBEAT_TIMEOUT = 100
"""Seconds without a sign of life after which a process counts as lost; all others are then ended."""

_LOST = ("Gloo", "NCCL", "oordination service", "Connection reset", "Socket closed")


@dataclass(frozen=True)
class Distributed:
    """Context manager: this process is one of several for as long as it is open.

    To be entered before anything touches a device. After an error this process leaves without waiting for the others.

    Attributes:
        coordinator: ``host:port`` where process 0 can be reached; None asks Slurm or Open MPI for everything.
        num_processes, process_id: how many there are, and which one this is, from 0; None likewise.
        timeout: seconds within which all must have come.

    Raises (on entering): UsageError for impossible values, ProcessLostError if a process does not come in time,
    UserError if the port is taken. (On leaving): ProcessLostError in the place of the error of a broken connection.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout: float = 300.0

    def __enter__(self) -> "Distributed":
        # Training handles SIGTERM itself; the service would put its own handler in the place of Python's.
        jax.config.update("jax_enable_preemption_service", False)
        limits: dict[str, Any] = {
            "initialization_timeout": max(1, round(self.timeout)),
            "heartbeat_timeout_seconds": HEARTBEAT_TIMEOUT,
        }
        if self.coordinator is None:
            scheduler_rank()
            jax.distributed.initialize(**limits)
            return self
        host, port = parse_address(self.coordinator)
        if self.num_processes is None or self.process_id is None:
            raise UsageError("a coordinator needs the number of processes and the number of this one as well")
        check_rank(self.process_id, self.num_processes)
        deadline = time.monotonic() + self.timeout
        if self.process_id == 0:
            _receive(port, self.num_processes, deadline, self.timeout)
        else:
            _report(host, port, self.process_id, self.num_processes, deadline, self.timeout)
        jax.distributed.initialize(
            self.coordinator, self.num_processes, self.process_id, cluster_detection_method="deactivate", **limits
        )
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or isinstance(error, SystemExit):
            # All stop at the same step, so all come here.
            jax.distributed.shutdown()
            return
        lost = isinstance(error, (jax.errors.JaxRuntimeError, ValueError)) and any(m in str(error) for m in _LOST)
        atexit.register(_leave, getattr(error, "exit_code", 1))
        if lost:
            raise ProcessLostError.during_a_run() from error


def use_scheduler_rank() -> tuple[int, int]:
    """This process's number and their count as Slurm or Open MPI says; for processes that do not talk to each other.

    Of several processes on one machine each takes one accelerator, as it would under :class:`Distributed`.

    Raises: UsageError if neither started this process.
    """
    index, count, local = scheduler_rank()
    visible = os.environ.get("JAX_LOCAL_DEVICE_IDS", str(local))
    jax.config.update("jax_cuda_visible_devices", visible)
    jax.config.update("jax_rocm_visible_devices", visible)
    return index, count


def _receive(port: int, count: int, deadline: float, timeout: float) -> None:
    """Process 0: waits until all others have reported, and tells them so, or that it is not to be."""
    came: dict[int, Any] = {}
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("", port), backlog=count, reuse_port=False))
        except OSError as error:
            raise UserError(
                f"process 0 cannot listen on port {port}: {error.strerror}. Choose another port for the coordinator"
            ) from error
        while len(came) < count - 1:
            listener.settimeout(max(0.0, deadline - time.monotonic()) or 1e-3)
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                missing = ", ".join(str(i) for i in range(1, count) if i not in came)
                _answer(came, f"process {missing} of {count} did not come within {timeout:g} seconds")
                raise ProcessLostError(
                    f"process {missing} of {count} did not come within {timeout:g} seconds. Start every process with "
                    "the same coordinator and number of processes, and see the messages of those that failed"
                ) from None
            stack.enter_context(connection)
            connection.settimeout(5.0)
            if greeting := _greeting(connection):
                process_id, others_count = greeting
                if others_count != count or not 0 < process_id < count or process_id in came:
                    reason = f"process {process_id} of {others_count} reported to a run of {count} processes" + (
                        " that has a process of this number already" if process_id in came else ""
                    )
                    _answer({**came, -1: connection}, reason)
                    raise UsageError(f"{reason}. Number the processes 0 to {count - 1}, each once")
                came[process_id] = connection
        _answer(came, "")


def _greeting(connection: socket.socket) -> tuple[int, int] | None:
    """Number and count of the process at the other end; None for a stranger (a port scan)."""
    try:
        process_id, count = json.loads(connection.makefile("rb").readline(100))
        return int(process_id), int(count)
    except (OSError, ValueError, TypeError):
        return None


def _answer(connections: dict[int, socket.socket], reason: str) -> None:
    """Sends every process the reason why there will be no run, or an empty line for: go on."""
    for connection in connections.values():
        with suppress(OSError):
            connection.sendall(reason.encode() + b"\n")
            # The other side closes first: the port is free for the service at once.
            connection.recv(1)


def _report(host: str, port: int, process_id: int, count: int, deadline: float, timeout: float) -> None:
    """Process 1 and up: reports to process 0 and waits for its answer."""
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(left, 1e-3)) as connection:
                connection.sendall(json.dumps([process_id, count]).encode() + b"\n")
                # Process 0 answers at its own time limit at the latest.
                connection.settimeout(timeout + 5.0)
                answer = connection.makefile("rb").readline(1000)
            if answer == b"\n":
                return
            if answer:
                raise ProcessLostError(f"{answer.decode(errors='replace').strip()} (said process 0)")
        except OSError as error:
            if deadline <= time.monotonic():
                raise ProcessLostError(
                    f"process {process_id} could not reach process 0 at {host}:{port} within {timeout:g} seconds: "
                    f"{error.strerror or error}. Start process 0 on that host, or correct the coordinator"
                ) from error
        time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))


def _leave(status: int) -> None:
    """Ends the process at interpreter exit without the service's farewell, which waits for everybody else."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
