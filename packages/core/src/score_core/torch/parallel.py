"""Data parallelism in PyTorch: one process a device, started by ``torchrun``.

Every process takes its share of each batch; gradients are averaged by ``DistributedDataParallel``. Random numbers are
those of the global batch (:mod:`score_core.torch.threefry` draws any part of an array by itself), so the result does
not depend on how many processes share the work.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from score_core.errors import UserError

__all__ = ["Parallel", "connect"]


def connect(timeout: float | None = None, *, device: str | None = None) -> None:
    """Connects this process with the others that the environment tells of; collective.

    Arguments:
        timeout: seconds after which one that waits for another gives up, now and later; None: PyTorch's own.
        device: as for :class:`Parallel`.

    Raises:
        RuntimeError: a process did not come in time.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    limit: dict[str, Any] = {} if timeout is None else {"timeout": timedelta(seconds=timeout)}
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", **limit)


class Parallel:
    """The processes of a run and what each has of a batch.

    ``torchrun`` tells a process of the others in the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT; without them it is alone. On GPUs the processes talk through NCCL, otherwise through Gloo.

    Arguments:
        local: ignore the other processes. Nothing is then collective.
        device: "cpu", "cuda", ...; None for a GPU if there is one.

    Raises:
        UserError: more processes on this machine than GPUs.
    """

    def __init__(self, *, local: bool = False, device: str | None = None) -> None:
        self.process_count = 1 if local else int(os.environ.get("WORLD_SIZE", "1"))
        self.process_index = 0 if local else int(os.environ.get("RANK", "0"))
        kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(kind)
        if kind == "cuda":
            number = int(os.environ.get("LOCAL_RANK", "0"))
            if local:  # as many as like share a GPU
                number %= torch.cuda.device_count()
            if number >= torch.cuda.device_count():
                raise UserError(
                    f"process {number} of this machine has no GPU, there are {torch.cuda.device_count()}; start "
                    "torchrun with --nproc-per-node of at most that number"
                )
            self.device = torch.device(kind, number)
            torch.cuda.set_device(self.device)
        if self.process_count > 1 and not dist.is_initialized():
            connect(device=kind)
        self._wrapped: DistributedDataParallel | None = None

    @property
    def device_count(self) -> int:
        return self.process_count

    @property
    def leader(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.process_index == 0

    def describe(self) -> dict[str, Any]:
        """Platform, kind and number of the devices, and the number of processes that they belong to."""
        cuda = self.device.type == "cuda"
        return {
            "platform": self.device.type,
            "kind": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "count": self.device_count,
            "processes": self.process_count,
        }

    def device_memory_bytes(self) -> int | None:
        """Peak memory of this process's device so far; None where the platform does not count it (CPU)."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def require_divisible(self, batch_size: int, key: str) -> None:
        """Checks that a global batch can be shared equally.

        Raises:
            UserError: naming the configuration key, if it cannot.
        """
        if batch_size % self.device_count:
            raise UserError(
                f"{key} is {batch_size}, which cannot be shared by {self.device_count} devices; "
                f"use a multiple of {self.device_count}"
            )

    def require_equal(self, value: int, what: str) -> None:
        """Checks that all processes hold the same number; collective.

        Arguments:
            value: 0 <= value < 2**31.
            what: what the number stands for, for the message.

        Raises:
            UserError: in every process, if one differs.
        """
        found = self._collect(value)
        if len(set(found)) > 1:
            raise UserError(f"the processes of this run differ in {what}; start them alike, in one shared folder")

    def maximum(self, value: int) -> int:
        """The largest of the numbers (0 <= value < 2**31) that the processes hold; collective."""
        return max(self._collect(value))

    def _collect(self, value: int) -> list[int]:
        return self.gather(torch.tensor([value], device=self.device)).tolist()

    def shard(self, array: Any) -> Tensor:
        """This process's part of a batch, a tensor or array, on its device."""
        tensor = torch.as_tensor(array)
        # From pinned memory a copy does not make the host wait.
        return (tensor.pin_memory() if self.device.type == "cuda" else tensor).to(self.device, non_blocking=True)

    def shard_range(self, n: int) -> Tensor:
        """Those of the numbers ``0 .. n-1`` of a batch's samples that this process has, int32 on its device."""
        part = n // self.process_count
        first = self.process_index * part
        return torch.arange(first, first + part, dtype=torch.int32, device=self.device)

    def gather(self, array: Tensor) -> np.ndarray:
        """The parts of all processes, of one shape, one after the other as one array, on every process; collective."""
        return self._gather(array).cpu().numpy()

    def _gather(self, array: Tensor) -> Tensor:
        if self.process_count == 1:
            return array
        parts = [torch.empty_like(array) for _ in range(self.process_count)]
        dist.all_gather(parts, array.contiguous())
        return torch.cat(parts)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, on every process; collective."""
        if self.process_count == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.process_count

    def batch_mean(self, values: Tensor) -> Tensor:
        """The mean of ``[B]`` numbers over the global batch: what a corrector needs; collective."""
        return self.mean(values.mean())

    def wrap(self, model: nn.Module, *, find_unused_parameters: bool = False) -> nn.Module:
        """``model``, such that backward passes through it leave gradients averaged over the processes; collective.

        Arguments:
            model: the network, on this process's device; its parameters become those of process 0.
            find_unused_parameters: some parameters are read by nothing.
        """
        if self.process_count == 1:
            return model
        self._wrapped = DistributedDataParallel(model, find_unused_parameters=find_unused_parameters)
        return self._wrapped

    def no_sync(self) -> AbstractContextManager[Any]:
        """Within it, backward passes keep their gradients to themselves, to be averaged with the next outside."""
        return self._wrapped.no_sync() if self._wrapped else nullcontext()

    def close(self) -> None:
        """Ends the processes' connection, if there is one; the last thing that a run does."""
        if self.process_count > 1 and dist.is_initialized():
            dist.destroy_process_group()
