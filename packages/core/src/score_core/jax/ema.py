"""Exponential moving average of parameters: ``ema <- rate * ema + (1 - rate) * params``, every step, constant rate."""

from typing import Any

import jax

__all__ = ["ema_update"]


def ema_update(ema: Any, params: Any, rate: Any) -> Any:
    """The averaged parameters after one more step.

    Args:
        ema, params: pytrees of the same structure.
        rate: in ``[0, 1)``; 0 copies the parameters.
    """
    # parity: constant rate, no bias correction and no warm-up
    return jax.tree.map(lambda average, new: average * rate + new * (1.0 - rate), ema, params)
