"""What ``score-convert`` knows of this package: the dequantiser's checkpoints, which ``--inspect`` shows.

Score models need nothing here: their checkpoints are those of score_sde.
"""

from typing import Any

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.flax_state import recognises_flax
from score_core.checkpoints.formats import Format, Report, register_format
from score_core.checkpoints.tree import flatten

__all__ = ["register"]

_MARK = b"ema_train_bpd"
"""A name that the dequantiser's training state has and no other."""


def _recognises(data: bytes) -> bool:
    return recognises_flax(data) and _MARK in data


def _read(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config
    tree = msgpack_format.loads(data, where=where)
    report.copied += [(name, name) for name in flatten(tree)]
    return tree


def _write(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config, report
    return msgpack_format.dumps(tree)


def register() -> None:
    """Makes the format known."""
    about = "msgpack checkpoint of a Flow++ dequantiser"
    register_format("flowpp", Format(about, _recognises, _read, _write, False, "flowpp_dequantizer"))
