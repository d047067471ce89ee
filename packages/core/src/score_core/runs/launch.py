"""How the processes of one run know of each other: command line, Slurm, Open MPI; the same for every framework."""

import os
import re

from score_core.errors import UsageError, UserError

__all__ = ["ProcessLostError", "check_rank", "parse_address", "scheduler_address", "scheduler_rank"]

# What the launchers tell each process: its number, how many there are, its number on its machine.
_LAUNCHERS = (
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


class ProcessLostError(UserError):
    """Another process of the run has ended, hangs, or never came."""

    @classmethod
    def during_a_run(cls) -> "ProcessLostError":
        """The error of a process whose connection to another broke."""
        return cls(
            "another process of this run has ended or cannot be reached any more (its own message says why). "
            "Start all of them again: the run goes on from its last checkpoint"
        )


def scheduler_rank() -> tuple[int, int, int]:
    """This process's number, their count, and its number on its machine, as Slurm or Open MPI says.

    Raises:
        UsageError: neither started this process.
    """
    for names in _LAUNCHERS:
        if all(os.environ.get(name, "").isdecimal() for name in names):
            index, count, local = (int(os.environ[name]) for name in names)
            return index, count, local
    raise UsageError(
        "neither Slurm (srun) nor Open MPI (mpirun) started this process, so it cannot find the others; "
        "give the number of processes and the number of this one, and to train the coordinator"
    )


def scheduler_address() -> tuple[str, int]:
    """Host and port where process 0 of a Slurm job can be reached: its first node, and a port made of the job's number.

    ``MASTER_ADDR`` and ``MASTER_PORT`` go before them.

    Raises:
        UsageError: the first node is not known, as under Open MPI.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or ""
    # node[03-05,9],other: the first name or the first number of the first bracket
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    host = os.environ.get("MASTER_ADDR") or (first and f"{first[1]}{first[2] or ''}")
    if not host:
        raise UsageError("set MASTER_ADDR to the host of process 0: only Slurm's srun says which that is")
    job = os.environ.get("SLURM_JOB_ID", "0")
    return host, int(os.environ.get("MASTER_PORT") or 20000 + int(job) % 20000)


def check_rank(process_id: int, num_processes: int) -> None:
    """Raises UsageError unless ``0 <= process_id < num_processes``."""
    if not 0 <= process_id < num_processes:
        raise UsageError(
            f"process number {process_id} of {num_processes} processes cannot be; numbers go from 0 to the number of "
            "processes minus 1"
        )


def parse_address(coordinator: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``.

    Raises:
        UsageError: it is something else.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"the coordinator is {coordinator!r}; it must be HOST:PORT, such as node01:29500")
    return host.strip("[]"), int(port)
