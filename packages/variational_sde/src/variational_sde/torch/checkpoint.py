"""A run's state and its file ``checkpoint.pt``: plain containers of tensors, read without running anything in them.

    format     "variational_sde 1"
    count      iterations done
    model      the reverse SDE's state dict (the original's names)
    ema        the averaged network's state dict, or None
    optimizer  Adam's state dict: numbers of parameters, 0 is T
    settings   network, sde, vtype, debias, real, dataset, ema_rate: what is needed to build the model
    rng        host, device: states of the generators; numpy: of the data's (Swissroll)
    pending    whether the iteration's evaluation, grid and checkpoint are still to be done
    loss       of that iteration's batch

The last good file stays as ``checkpoint-previous.pt``: a damaged one is reported and that one used.
"""

import io
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.errors import UserError
from variational_sde import original_format
from variational_sde.checkpoint_formats import FORMAT, loads_own
from variational_sde.torch.mlp import MLP
from variational_sde.torch.restoring import as_tensor, check_adam, check_tensors, load_adam, load_tensors
from variational_sde.torch.reverse_sde import Generators, PluginReverseSDE, VariancePreservingSDE
from variational_sde.torch.unet import UNet, group_norm

__all__ = [
    "FILE",
    "RunState",
    "build_model",
    "decode",
    "encode",
    "load_model",
    "new_state",
    "read_run",
    "save_run",
]

_logger = logging.getLogger(__name__)

FILE, PREVIOUS, ORIGINAL = "checkpoint.pt", "checkpoint-previous.pt", "checkpoint_original.pt"


@dataclass
class RunState:
    """Everything that training changes, and what the model was built from."""

    model: PluginReverseSDE
    optimizer: torch.optim.Adam
    generators: Generators
    settings: dict[str, Any]
    count: int = 0
    ema: dict[str, Tensor] = field(default_factory=dict)
    numpy: np.random.RandomState | None = None
    pending: bool = False
    loss: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.T.device


def build_model(settings: Mapping[str, Any], *, exact_times: bool = False) -> PluginReverseSDE:
    """The model of ``settings`` with fresh parameters.

    Raises:
        CheckpointError: a network or value that there is not.
    """
    try:
        options = dict(settings["network"])
        kind, groups = options.pop("kind"), options.pop("groups", 32)
        if kind == "mlp":
            network: nn.Module = MLP(**options)
        elif kind == "unet":
            norm = group_norm if groups == 32 else lambda channels: group_norm(channels, groups)
            network = UNet(**options, normalize=norm)
        else:
            raise ValueError(f"unknown kind of network {kind!r}")
        base = VariancePreservingSDE(**settings["sde"])
        return PluginReverseSDE(base, network, settings["vtype"], settings["debias"], exact_times)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"the settings of the model are not complete: {error}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def new_state(
    settings: Mapping[str, Any], *, lr: float, seed: int, device: torch.device, exact_times: bool = False
) -> RunState:
    """A fresh state: the network initialised with PyTorch's default generator after ``manual_seed(seed)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(settings, exact_times=exact_times)
    model.to(device)
    # parity: T comes first in the optimiser's list and never gets a gradient
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    state = RunState(model, optimizer, Generators.seeded(seed, device), dict(settings))
    if settings.get("ema_rate"):
        state.ema = {name: value.detach().clone() for name, value in model.a.state_dict().items()}
    return state


def encode(state: RunState) -> bytes:
    """The file's contents.

    Raises:
        UserError: a parameter is not finite.
    """
    total = sum((p.detach().sum() * 0 for p in state.model.parameters()), torch.zeros((), device=state.device))
    if not bool(torch.isfinite(total)):
        raise UserError(
            f"training has diverged: parameters are not finite after iteration {state.count}. Nothing was saved over "
            "the last good checkpoint; lower --lr, and start again"
        )
    rng: dict[str, Any] = {}
    for name in ("host", "device"):
        generator = getattr(state.generators, name)
        rng[name] = None if generator is None else generator.get_state()
    if state.numpy is not None:
        _, keys, position, has_gauss, gauss = state.numpy.get_state(legacy=True)
        rng["numpy"] = [torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss]
    content = {
        "format": FORMAT,
        "count": state.count,
        "model": OrderedDict(state.model.state_dict()),
        "ema": OrderedDict(state.ema) if state.ema else None,
        "optimizer": state.optimizer.state_dict(),
        "settings": state.settings,
        "rng": rng,
        "pending": state.pending,
        "loss": state.loss,
    }
    buffer = io.BytesIO()
    torch.save(_canonical(content), buffer)
    return buffer.getvalue()


def _canonical(value: Any) -> Any:
    """The same with one object for equal strings, so that equal states are equal files."""
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, Mapping):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((_canonical(key), _canonical(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_canonical, value))
    return value


def decode(data: bytes, where: Any) -> dict[str, Any]:
    """The contents of a file of this program or of the original, arrays for tensors, in this program's form.

    Raises:
        CheckpointError: it is damaged, hostile, or something else.
    """
    if original_format.recognises(data):
        return original_format.loads(data, where)
    return loads_own(data, where)


def restore(state: RunState, content: Mapping[str, Any], where: Any) -> None:
    """Makes ``state`` that of a file's contents; its random states only where the file has them.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape; nothing is changed then.
    """
    check_tensors(state.model, content["model"], where)
    check_adam(state.optimizer, content["optimizer"], where)
    ema = content.get("ema") or {}
    check_tensors(state.model.a, ema or state.model.a.state_dict(), where)
    load_tensors(state.model, content["model"], where)
    load_adam(state.optimizer, content["optimizer"])
    state.count = int(content["count"])
    state.pending = bool(content.get("pending", False))
    state.loss = float(content.get("loss", 0.0))
    state.ema = {name: as_tensor(value).to(state.device) for name, value in ema.items()} or state.ema
    rng = content.get("rng") or {}
    for name in ("host", "device"):
        generator = getattr(state.generators, name)
        if generator is not None and rng.get(name) is not None:
            generator.set_state(as_tensor(rng[name]).to(torch.uint8))
    if state.numpy is not None and rng.get("numpy"):
        keys, position, has_gauss, gauss = rng["numpy"]
        state.numpy.set_state(("MT19937", np.asarray(keys).astype(np.uint32), position, has_gauss, gauss))


def save_run(folder: Path, state: RunState, *, original: bool = False) -> None:
    """Writes ``checkpoint.pt``, keeping the one before; with ``original`` also the original's form.

    Raises:
        UserError: not finite, or it cannot be written; what was there stays.
    """
    data = encode(state)
    file, previous = folder / FILE, folder / PREVIOUS
    if file.exists():
        temporary = folder / f".{PREVIOUS}.tmp"
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(file, temporary)  # the same bytes under a second name: nothing is copied
            os.replace(temporary, previous)
        except OSError:
            atomic_write(previous, file.read_bytes())  # a disk without links
    atomic_write(file, data)
    if original:
        from variational_sde.torch.original_writer import dumps

        atomic_write(folder / ORIGINAL, dumps(state))


def read_run(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """The contents of a run's newest good checkpoint and its file; None if there is none.

    Raises:
        CheckpointError: there are some and all are damaged.
    """
    damage: list[str] = []
    for file in (folder / FILE, folder / PREVIOUS):
        if not file.exists():
            continue
        try:
            return decode(_read(file), file), file
        except CheckpointError as error:
            damage.append(str(error))
            _logger.warning("%s cannot be used, trying the one before: %s", file.name, error)
    if damage:
        raise CheckpointError(f"no usable checkpoint in {folder}: {' '.join(damage)}")
    return None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"no checkpoint {file}. Check the name.") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}.") from error


def load_model(
    path: Path, device: torch.device, *, ema: bool = True, check: Callable[[dict[str, Any]], None] | None = None
) -> tuple[PluginReverseSDE, dict[str, Any], Path]:
    """The trained model of a run's folder or of a checkpoint file, in evaluation mode.

    Returns:
        The model, the file's contents and the file.

    Raises:
        MissingCheckpointError: there is none.
        CheckpointError: see :func:`decode`.
    """
    if path.is_dir():
        found = read_run(path)
        if found is None:
            raise MissingCheckpointError(f"there is no {FILE} in {path}. Train first, or name a checkpoint file.")
        content, file = found
    else:
        content, file = decode(_read(path), path), path
    if check is not None:
        check(content)
    model = build_model(content["settings"])
    load_tensors(model, content["model"], file)
    if ema and content.get("ema"):
        load_tensors(model.a, content["ema"], file)
    return model.to(device).eval(), content, file
