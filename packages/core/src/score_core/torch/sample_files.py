"""Samples as files: tensors as ``torch.save`` writes them, grids as PNG."""

from pathlib import Path

import numpy as np
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_core.data import image_grid, save_png
from score_core.torch.pth import dumps

__all__ = ["save_grid", "save_tensor", "to_pictures"]


def to_pictures(images: Tensor) -> np.ndarray:
    """``[B, C, H, W]`` in [0, 1] as float32 ``[B, H, W, C]`` on the host."""
    return images.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()


def save_grid(path: Path, images: Tensor, nrow: int) -> np.ndarray:
    """Write images ``[B, C, H, W]`` in [0, 1] as one PNG, ``nrow`` to a row; the grid, uint8 ``[H, W, 3]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = image_grid(to_pictures(images), nrow)
    save_png(path, grid)
    return grid


def save_tensor(path: Path, images: Tensor) -> None:
    """Write a tensor as a ``.pth`` file (float32, on the CPU)."""
    atomic_write(path, dumps(images.detach().cpu().contiguous()))
