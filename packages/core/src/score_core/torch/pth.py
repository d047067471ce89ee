"""Writing PyTorch checkpoints; :mod:`score_core.checkpoints.pth_format` reads them, without needing PyTorch."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["dumps"]


def dumps(content: Any) -> bytes:
    """Containers of arrays as ``torch.save`` writes them, the arrays as tensors."""
    buffer = io.BytesIO()
    torch.save(_with_tensors(content), buffer)
    return buffer.getvalue()


def _with_tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # torch wants writable memory
        return torch.from_numpy(value if value.flags.writeable and value.flags.c_contiguous else np.array(value))
    if isinstance(value, Mapping):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((key, _with_tensors(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_tensors, value))
    return value
