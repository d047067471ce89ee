"""Data parallelism in JAX: one mesh axis ``data`` over all devices of all processes.

Batches are sharded over the axis, everything else is replicated. Random numbers are drawn for the global batch, so the
result does not depend on how many devices share the work.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_core.errors import UserError

__all__ = ["Parallel"]


class Parallel:
    """The devices of a run and how arrays are laid out over them.

    Arguments:
        local: only the devices of this process, which then is the only one of its run. Nothing is then collective.
    """

    def __init__(self, *, local: bool = False) -> None:
        devices = jax.local_devices() if local else jax.devices()
        # A process's part of a batch is contiguous, so its devices must be as well.
        devices = sorted(devices, key=lambda device: (device.process_index, device.id))
        self.mesh = Mesh(np.asarray(devices), ("data",))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.process_index = 0 if local else jax.process_index()
        self.process_count = 1 if local else jax.process_count()

    @property
    def device_count(self) -> int:
        return self.mesh.size

    @property
    def leader(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.process_index == 0

    def describe(self) -> dict[str, Any]:
        """Platform, kind and number of the devices, and the number of processes that they belong to."""
        device = self.mesh.devices.flat[0]
        return {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": self.device_count,
            "processes": self.process_count,
        }

    def device_memory_bytes(self) -> int | None:
        """Peak memory of this process's fullest device so far; None where the platform does not count it (CPU)."""
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in self.mesh.local_devices]
        return max((peak for peak in peaks if peak is not None), default=None)

    def require_divisible(self, batch_size: int, key: str) -> None:
        """Checks that a global batch can be shared equally.

        Raises:
            UserError: naming the configuration key, if it cannot; or if the processes have unequal numbers of devices.
        """
        if batch_size % self.device_count:
            raise UserError(
                f"{key} is {batch_size}, which cannot be shared by {self.device_count} devices; "
                f"use a multiple of {self.device_count}"
            )
        if len(self.mesh.local_devices) * self.process_count != self.device_count:
            raise UserError(
                f"process {self.process_index} has {len(self.mesh.local_devices)} of {self.device_count} devices in "
                f"{self.process_count} processes; every process must have as many as any other"
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
        if self.process_count == 1:
            return [value]
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(np.int32(value))).ravel().tolist()

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of every leaf, which all processes hold alike, on every device."""
        if self.process_count == 1:
            return jax.device_put(tree, self.replicated)
        put = jax.make_array_from_process_local_data
        return jax.tree.map(lambda leaf: put(self.replicated, np.asarray(leaf)), tree)

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Makes global arrays, sharded along ``axis``, from the part of the batch that this process has."""
        layout = NamedSharding(self.mesh, PartitionSpec(*([None] * axis), "data"))
        return jax.tree.map(lambda part: jax.make_array_from_process_local_data(layout, np.asarray(part)), tree)

    def shard_range(self, n: int) -> jax.Array:
        """``0 .. n-1`` (int32) as a global array sharded over the devices: the numbers of a batch's samples."""
        part = n // self.process_count
        return self.shard(np.arange(self.process_index * part, (self.process_index + 1) * part, dtype=np.int32))

    def gather(self, array: jax.Array) -> np.ndarray:
        """A sharded array as one NumPy array, on every process; collective."""
        if self.process_count == 1:
            return np.asarray(array)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
