"""``results.json``: every measured number of a work directory with what is needed to judge and to repeat it.

    {"schema": 1, "results": [{"metric": "fid", "value": 2.41, ...}, ...]}

A result measured again under the same conditions (:data:`IDENTITY`) replaces the earlier one, others are appended.
Numbers that are not finite are stored as the strings "nan", "inf", "-inf", which JSON does not have as numbers.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UserError
from score_core.runs.provenance import command_line, peak_memory_bytes, utc_now, versions

__all__ = ["IDENTITY", "SCHEMA", "Result", "ResultsError", "add_results", "read_results"]

SCHEMA = 1

IDENTITY = (
    "metric",
    "dataset",
    "checkpoint_step",
    "config_hash",
    "framework",
    "seed",
    "sample_count",
    "ema",
    "denoise",
    "extractor",
    "statistics_sha256",
)


class ResultsError(UserError):
    """``results.json`` is not what this version writes; the message says where."""


@dataclass(frozen=True)
class Result:
    """One number and its circumstances; None where a circumstance does not apply."""

    metric: str
    """"fid", "inception_score", "kid", "bpd", ..."""
    value: float
    """In the metric's unit (bits/dim for "bpd")."""
    standard_error: float | None = None
    """Standard error of ``value`` in the same unit."""
    sample_count: int | None = None
    """Images the number was computed from."""
    dataset: str | None = None
    """Data set and split it refers to, such as "cifar10/train"."""
    checkpoint_step: int | None = None
    """The training step of the checkpoint (not its number)."""
    checkpoint_sha256: str | None = None
    """Hash of the checkpoint file."""
    config_hash: str | None = None
    """:func:`score_core.runs.config_record.config_hash` of the configuration."""
    framework: str | None = None
    """The framework that computed it ("jax", "torch")."""
    seed: int | None = None
    """Seed of the samples or of the noise."""
    ema: bool | None = None
    """Whether the averaged parameters were used."""
    denoise: bool | None = None
    """Whether the last step's noise was removed."""
    extractor: str | None = None
    """Feature extractor: name and hash of its weights."""
    statistics_sha256: str | None = None
    """Hash of the reference statistics."""
    protocol: str | None = None
    """Which images count and how many samples are drawn, where a program knows several ways ("complete")."""
    devices: dict[str, Any] = field(default_factory=dict)
    """What it ran on: platform, kind and number of devices, number of processes."""
    seconds: float | None = None
    """Wall time of sampling and measuring."""
    device_memory_bytes: int | None = None
    """Peak memory of one device."""
    peak_memory_bytes: int = field(default_factory=peak_memory_bytes)
    """Peak memory of the process on the host."""
    versions: dict[str, str] = field(default_factory=versions)
    command: list[str] = field(default_factory=command_line)
    utc: str = field(default_factory=utc_now)
    details: dict[str, Any] = field(default_factory=dict)
    """Further plain values (nfe, sampler, ...); what is not finite among them comes back as text."""

    def identity(self) -> tuple[Any, ...]:
        """The conditions that tell whether another result is the same measurement."""
        return tuple(getattr(self, name) for name in IDENTITY)


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """The results in a file; none if there is no such file.

    Raises: ResultsError if it is not a results file of this schema.
    """
    path = Path(path)
    try:
        contents = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read {path}: {error}. Restore it, or move it away to start anew.") from error
    if (
        not isinstance(contents, dict)
        or contents.get("schema") != SCHEMA
        or not isinstance(contents.get("results"), list)
    ):
        raise ResultsError(f"{path} is not a results file of schema {SCHEMA}. Move it away to start anew.")
    return [_parse(record, f"{path}, result {index}") for index, record in enumerate(contents["results"])]


def add_results(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Put ``results`` into the file, each in place of one with the same :data:`IDENTITY` or else at the end.

    Several processes may add to one file; each waits for the other.

    Raises: ResultsError if the file is not a results file or a result does not keep to the schema; CheckpointError if
    it cannot be written. The file is then as it was.
    """
    from filelock import FileLock

    path = Path(path)
    added = [_parse(_record(result), f"the new result {result.metric!r}") for result in results]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            merged = {result.identity(): result for result in [*read_results(path), *added]}
            contents = {"schema": SCHEMA, "results": [_record(result) for result in merged.values()]}
            atomic_write(path, (json.dumps(contents, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}. Choose another folder.") from error
    except TypeError as error:
        raise ResultsError(f"the details of a result cannot be written as JSON: {error}") from error


# Types in the file, by annotation of the field.
_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    float: (float, int),
    int: (int,),
    dict[str, str]: (dict,),
    dict[str, Any]: (dict,),
    list[str]: (list,),
    str | None: (str, NoneType),
    int | None: (int, NoneType),
    float | None: (float, int, NoneType),
    bool | None: (bool, NoneType),
}


def _record(result: Result) -> dict[str, Any]:
    return {name: _storable(value) for name, value in asdict(result).items()}


def _storable(value: Any) -> Any:
    """``value`` as JSON has it: NumPy values as Python's, numbers that are not finite as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _parse(record: Any, where: str) -> Result:
    if not isinstance(record, dict):
        raise ResultsError(f"{where} is not a record of fields")
    known = {item.name: item.type for item in fields(Result)}
    required = known.keys() - {
        "details",
        "device_memory_bytes",
        "checkpoint_sha256",
        "protocol",
        "devices",
        "framework",
    }
    if absent := sorted(required - record.keys()):
        raise ResultsError(f"{where} lacks {', '.join(absent)}")
    if unknown := sorted(record.keys() - known.keys()):
        raise ResultsError(f"{where} has unknown fields {', '.join(unknown)}: it was written by another version")
    values = {name: _parse_field(value, known[name], f"{where}, field {name!r}") for name, value in record.items()}
    return Result(**values)


def _parse_field(value: Any, annotation: Any, where: str) -> Any:
    allowed = _TYPES[annotation]
    if float in allowed and value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(kind.__name__ for kind in allowed)
        raise ResultsError(f"{where} holds {value!r:.60}, expected {names}")
    return value
