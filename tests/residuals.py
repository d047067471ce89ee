"""What JAX keeps of a function for its gradient."""

from collections.abc import Callable
from typing import Any

import jax


def kept_bytes(function: Callable[..., jax.Array], params: Any, *more: Any) -> int:
    """Bytes that the backward pass of ``function(params, *more)`` towards ``params`` is handed; nothing is computed.

    Not what a compiled program holds: compilers for CPUs see that rematerialised values are computed twice, and keep
    them after all; those for accelerators do not.
    """

    def residuals(params: Any, *more: Any) -> Any:
        return jax.vjp(lambda params: function(params, *more), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, params, *more))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
