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
    """The devices of a run and how arrays are laid out over them."""

    def __init__(self) -> None:
        self.mesh = Mesh(np.asarray(jax.devices()), ("data",))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.process_index = jax.process_index()
        self.process_count = jax.process_count()

    @property
    def device_count(self) -> int:
        return self.mesh.size

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

    def require_one_process(self, what: str) -> None:
        """Refuses what has not been built for several processes.

        Raises:
            UserError: there are several.
        """
        if self.process_count > 1:
            raise UserError(
                f"{what} runs in one process, not in {self.process_count}; start it without jax.distributed"
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a copy of every leaf on every device."""
        return jax.device_put(tree, self.replicated)

    def shard(self, tree: Any, axis: int = 0) -> Any:
        """Makes global arrays, sharded along ``axis``, from the part of the batch that this process has."""
        layout = NamedSharding(self.mesh, PartitionSpec(*([None] * axis), "data"))
        return jax.tree.map(lambda part: jax.make_array_from_process_local_data(layout, np.asarray(part)), tree)

    def shard_range(self, n: int) -> jax.Array:
        """``0 .. n-1`` (int32) as a global array sharded over the devices: the numbers of a batch's samples."""
        return jax.device_put(np.arange(n, dtype=np.int32), NamedSharding(self.mesh, PartitionSpec("data")))

    def gather(self, array: jax.Array) -> np.ndarray:
        """A sharded array as one NumPy array, on every process."""
        if self.process_count == 1:
            return np.asarray(array)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
