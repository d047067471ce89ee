"""A PyTorch training state as a file of the original PyTorch program (:mod:`score_core.torch.train_state`)."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_format import loads_pth
from score_core.noise_scales import langevin_sigmas
from score_core.torch import threefry
from score_core.torch.train_state import TrainState, state_from_tree, state_to_tree

__all__ = ["decode", "encode"]

_SIGMAS = "sigmas"


def encode(state: TrainState, config: Any, keys: Mapping[str, str] | None) -> bytes:
    """The contents of a checkpoint file.

    Arguments:
        state: the state.
        config: its configuration.
        keys: our names of the parameters to the original's; None where it has no such network, for our own.
    """
    model, buffers = config.model, {}
    if keys is not None:
        # parity: float64, unlike the levels that the network divides by
        levels = langevin_sigmas(model.sigma_max, model.sigma_min, model.num_scales)
        buffers = {_SIGMAS: torch.from_numpy(levels)}
    buffer = io.BytesIO()
    torch.save(_on_the_host(state_to_tree(state, keys, buffers)), buffer)
    return buffer.getvalue()


def decode(data: bytes, state: TrainState, keys: Mapping[str, str] | None, *, where: Any) -> TrainState:
    """Fills ``state`` from a checkpoint file of ours or of the original, and returns it.

    Arguments:
        data: the file's contents.
        state: a fresh state of the network.
        keys: as for :func:`encode`.
        where: the file, for messages.

    Raises:
        CheckpointError: it is damaged, no training state, or one of another network.
    """
    tree = loads_pth(data, where=where)
    if not isinstance(tree, dict):
        raise CheckpointError(f"{where} holds a {type(tree).__name__}, no training state: name a checkpoint file")
    try:
        state = state_from_tree(tree, state, keys, (_SIGMAS,))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{where} is not a training state of the PyTorch program ({type(error).__name__}: {error}): name a file "
            "that training wrote"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if "rng" not in tree:  # a file of the original: not the numbers of the first steps again
        state.rng = threefry.fold_in(state.rng, state.step)  # type: ignore[arg-type]
    return state


def _on_the_host(value: Any) -> Any:
    """Containers with every tensor on the host, contiguous down to the strides of axes of length one."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return type(value)((key, _on_the_host(item)) for key, item in value.items())
    return [_on_the_host(item) for item in value] if isinstance(value, list) else value
