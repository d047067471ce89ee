"""What ``score-convert`` knows of this package: its own checkpoints and the original's, into one another.

Both are read into one tree, the contents that :mod:`variational_sde.torch.checkpoint` describes. Reading needs no
PyTorch; writing does.
"""

from importlib import import_module
from typing import Any

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Format, Report, register_format
from score_core.checkpoints.pth_format import loads_pth, outline_pth
from variational_sde import original_format

__all__ = ["FORMAT", "loads_own", "register"]

FORMAT = "variational_sde 1"
"""What a checkpoint of this program says it is."""
_FAMILY = "variational_sde"
_KEYS = ("count", "model", "ema", "optimizer", "settings", "rng", "pending", "loss")


def loads_own(data: bytes, where: Any = "checkpoint") -> dict[str, Any]:
    """The contents of a checkpoint of this program.

    Raises:
        CheckpointError: it is damaged, hostile, or something else.
    """
    content = loads_pth(data, where=where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{where} is no checkpoint of variational_sde, neither this program's nor the original's."
        )
    if missing := [key for key in _KEYS if key not in content]:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}: it was written by another version.")
    return content


def recognises_own(data: bytes) -> bool:
    """Whether the bytes are a checkpoint of this program."""
    if data[:4] != b"PK\x03\x04":
        return False
    try:
        content = outline_pth(data)
    except CheckpointError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _read_own(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config
    return _counted(loads_own(data, where), report)


def _read_original(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config
    report.notes.append("the file has no random states: training goes on with new ones")
    return _counted(original_format.loads(data, where), report)


def _counted(tree: dict[str, Any], report: Report) -> dict[str, Any]:
    report.copied += [(name, name) for name in tree["model"]]
    return tree


def _write_own(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config, report
    # Lazily and by name: reading needs no framework, only writing does.
    return import_module("score_core.torch.pth").dumps({**tree, "format": FORMAT})


def _write_original(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config
    if tree["ema"]:
        report.notes.append("the averaged parameters have no place and are left out")
    if tree["rng"]:
        report.notes.append("the random states have no place and are left out")
    return import_module("variational_sde.torch.original_writer").dumps_tree(tree)


def register() -> None:
    """Makes both formats known."""
    own = Format("checkpoint.pt of variational_sde", recognises_own, _read_own, _write_own, False, _FAMILY)
    original = Format(
        "checkpoint.pt of the original program (whole objects)",
        original_format.recognises,
        _read_original,
        _write_original,
        False,
        _FAMILY,
    )
    register_format("variational", own)
    register_format("variational_original", original)
