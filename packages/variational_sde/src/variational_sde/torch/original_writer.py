"""Writes the original's ``checkpoint.pt``: the same list, the same import names, loadable where its classes are.

Nothing of this program's classes gets into the file. Each module becomes a pickled object of the original's class with
the attributes that PyTorch 1.8's modules have; newer versions fill in what they added.
"""

import io
import pickle
from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from score_core.errors import UserError
from variational_sde.original_format import OPTIONS
from variational_sde.torch.checkpoint import RunState, new_state, restore
from variational_sde.torch.reverse_sde import PluginReverseSDE, VariancePreservingSDE
from variational_sde.torch.unet import ResidualBlock, SelfAttention, Swish, TimestepEmbedding, UNet

__all__ = ["dumps", "dumps_tree"]

_OURS: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    PluginReverseSDE: ("lib.sdes", ("vtype", "debias")),
    VariancePreservingSDE: ("lib.sdes", ("beta_min", "beta_max", "t_epsilon")),
    UNet: ("lib.models.unet", (*OPTIONS, "normalize", "num_resolutions")),
    TimestepEmbedding: ("lib.models.unet", ("embedding_dim", "output_dim", "hidden_dim")),
    ResidualBlock: ("lib.models.unet", ("in_ch", "temb_ch", "out_ch", "conv_shortcut")),
    SelfAttention: ("lib.models.unet", ("in_channels",)),
    Swish: ("lib.models.unet", ()),
}


class _Named:
    """A class or function of another program, by its import path only."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Object:
    """An object of such a class, by its state."""

    def __init__(self, cls: _Named, state: dict[str, Any]) -> None:
        self.cls, self.state = cls, state


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Python's own pickler, which also writes names and objects of classes that are not here."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        writer: Any = self
        if isinstance(obj, _Named):
            if not self._recall(obj):
                writer.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
                writer.memoize(obj)
        elif isinstance(obj, _Object):
            if not self._recall(obj):
                self.save(obj.cls)
                writer.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)
                writer.memoize(obj)
                self.save(obj.state)
                writer.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]

    def _recall(self, obj: Any) -> bool:
        writer: Any = self
        known = writer.memo.get(id(obj))
        if known is not None:
            writer.write(writer.get(known[0]))
        return known is not None


def dumps(state: RunState) -> bytes:
    """The bytes of the file.

    Raises:
        UserError: the network is none that the original has.
    """
    if not isinstance(state.model.a, UNet):
        raise UserError(f"the original has no checkpoints of a {type(state.model.a).__name__}")
    names: dict[tuple[str, str], _Named] = {}

    def named(module: str, name: str) -> _Named:
        return names.setdefault((module, name), _Named(module, name))

    content = [_module(state.model, named), _optimizer(state.optimizer, named), True, state.count]
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_module=SimpleNamespace(Pickler=_Pickler, __name__="pickle"), pickle_protocol=2)
    return buffer.getvalue()


def dumps_tree(tree: dict[str, Any]) -> bytes:
    """The bytes of the file from the contents of a checkpoint of this program."""
    group = tree["optimizer"]["param_groups"][0]
    state = new_state(tree["settings"], lr=float(group["lr"]), seed=0, device=torch.device("cpu"))
    restore(state, tree, "the checkpoint")
    return dumps(state)


def _module(module: nn.Module, named: Any) -> _Object:
    kind = type(module)
    if kind in _OURS:
        home, attributes = _OURS[kind]
        values = {name: getattr(module, name) for name in attributes}
        if "normalize" in values:
            values["normalize"] = named("lib.models.unet", "group_norm")
    else:
        home = kind.__module__
        values = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
        values.pop("recompute_scale_factor", None)
    state: dict[str, Any] = {
        "training": True,  # parity: the original saves in training mode
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_is_full_backward_hook": None,
        "_forward_hooks": OrderedDict(),
        "_forward_pre_hooks": OrderedDict(),
        "_state_dict_hooks": OrderedDict(),
        "_load_state_dict_pre_hooks": OrderedDict(),
        "_modules": OrderedDict(
            (name, _module(child, named)) for name, child in module._modules.items() if child is not None
        ),
        **values,
    }
    if kind is nn.Conv2d:
        assert isinstance(module, nn.Conv2d)
        state["_reversed_padding_repeated_twice"] = tuple(int(n) for n in reversed(module.padding) for _ in range(2))
    return _Object(named(home, kind.__name__), state)


def _optimizer(optimizer: torch.optim.Adam, named: Any) -> _Object:
    (group,) = optimizer.param_groups
    options = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "amsgrad")}
    moments: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
    for parameter in group["params"]:
        if entry := optimizer.state.get(parameter):
            moments[parameter] = {
                "step": int(entry["step"]),
                "exp_avg": entry["exp_avg"],
                "exp_avg_sq": entry["exp_avg_sq"],
            }
    state = {
        "defaults": dict(options),
        "state": moments,
        "param_groups": [{"params": list(group["params"]), **options}],
    }
    return _Object(named("torch.optim.adam", "Adam"), state)
