"""Several processes, one run, in PyTorch: how they find each other, and how a run ends when one of them does.

``torchrun`` tells every process of the others in the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT). Started by hand or by Slurm, a process puts the same variables there itself.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from score_core.errors import UsageError
from score_core.runs.launch import ProcessLostError, check_rank, parse_address, scheduler_address, scheduler_rank
from score_core.torch.parallel import connect

__all__ = ["Distributed", "use_launcher_rank"]

_LOST = ("onnection", "Gloo", "gloo", "NCCL", "ocket", "timed out", "Timed out")


def _is_torchrun() -> bool:
    return all(os.environ.get(name, "").isdecimal() for name in ("RANK", "WORLD_SIZE"))


def use_launcher_rank(*, scheduler: bool = False) -> tuple[int, int]:
    """This process's number and their count as ``torchrun`` says, else 0 and 1; for processes that do not talk.

    Arguments:
        scheduler: ask Slurm or Open MPI where ``torchrun`` says nothing.

    Raises: UsageError if none of them started this process.
    """
    if _is_torchrun():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if not scheduler:
        return 0, 1
    index, count, local = scheduler_rank()
    os.environ["LOCAL_RANK"] = str(local)  # which GPU it takes
    return index, count


@dataclass(frozen=True)
class Distributed:
    """Context manager: this process is one of several for as long as it is open.

    Attributes:
        coordinator: ``host:port`` where process 0 can be reached; None: ``torchrun`` says it or, with ``scheduler``,
            Slurm. A process that ``torchrun`` did not start and that is given neither is alone.
        num_processes, process_id: how many there are, and which one this is, from 0; with a coordinator.
        scheduler: started by Slurm (or Open MPI, where MASTER_ADDR says where process 0 is).
        timeout: seconds within which all must have come, and after which a process that waits for another gives up.

    Raises (on entering): UsageError for impossible values, ProcessLostError if a process does not come in time. (On
    leaving): ProcessLostError in the place of the error of a broken connection.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    scheduler: bool = False
    timeout: float = 300.0

    def __enter__(self) -> "Distributed":
        local = "0"
        if self.coordinator is not None:
            if self.num_processes is None or self.process_id is None:
                raise UsageError("a coordinator needs the number of processes and the number of this one as well")
            check_rank(self.process_id, self.num_processes)
            address, rank, count = parse_address(self.coordinator), self.process_id, self.num_processes
        elif self.scheduler and not _is_torchrun():
            rank, count, local = scheduler_rank()
            address = scheduler_address()
        else:
            return self._connected()
        names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
        os.environ.update(dict(zip(names, map(str, (*address, rank, count, local)), strict=True)))
        return self._connected()

    def _connected(self) -> "Distributed":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                connect(self.timeout)
            except RuntimeError as error:
                raise ProcessLostError(
                    f"the {os.environ['WORLD_SIZE']} processes of this run did not all come to "
                    f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} within {self.timeout:g} seconds "
                    f"({str(error).splitlines()[0]}). Start every process with the same coordinator and number of "
                    "processes, and see the messages of those that failed"
                ) from error
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if not dist.is_initialized():
            return
        if error is None or isinstance(error, SystemExit):
            # All stop at the same step, so all come here.
            dist.destroy_process_group()
        elif isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(mark in str(error) for mark in _LOST)
        ):
            raise ProcessLostError.during_a_run() from error
