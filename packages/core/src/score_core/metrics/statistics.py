"""Statistics of a set of images under a feature extractor, and the files that hold them.

A file is an ``.npz`` that three programs can read: ``pool_3`` (activations [n, D] float32) is the key the SDE papers'
evaluation looks for, ``mu`` and ``sigma`` (moments, float64) are the keys of TTUR and pytorch-fid, ``logits`` [n, K]
and ``header`` (JSON text) are ours. Nothing is pickled. The header says what was measured and carries the SHA-256 of
every array; a file is compared with its header before use. Files without a header (``*_stats.npz`` with ``pool_3``,
TTUR's ``mu`` and ``sigma``) are read too: what they do not say is None in the header.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from score_core.checkpoints.store import atomic_write
from score_core.metrics.streaming import moments
from score_core.metrics.validation import MetricError, MetricUsageError, check_matrix, check_moments

__all__ = ["Statistics", "check_comparable", "load_statistics", "original_statistics_path"]

FORMAT = "score_core statistics"
VERSION = 1
# What a header answers; None: unknown.
FIELDS = ("dataset", "split", "preprocessing", "extractor", "extractor_sha256")
RESERVED = ("format", "version", "count", "sha256")  # written and checked by the file format itself


@dataclass(frozen=True, eq=False)
class Statistics:
    """Moments of a set of activations, with the activations themselves if kept.

    Attributes:
        mean: [D] float64.
        cov: [D, D] float64, over count - 1.
        count: number of images; None if a file does not say.
        header: FIELDS and anything the maker added (image size, seed, ...); JSON values. None means unknown.
        pool_3: activations [count, D] float32, or None if only moments were kept. The kernel distance needs them.
        logits: [count, K] float32 or None. The Inception score needs them.
    """

    mean: np.ndarray
    cov: np.ndarray
    count: int | None
    header: Mapping[str, Any]
    pool_3: np.ndarray | None = None
    logits: np.ndarray | None = None

    def __post_init__(self) -> None:
        mean, cov = check_moments("statistics", self.mean, self.cov)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "cov", cov)
        object.__setattr__(self, "header", dict.fromkeys(FIELDS) | dict(self.header))
        if reserved := sorted(self.header.keys() & set(RESERVED)):
            raise MetricError(f"statistics: header fields {reserved} belong to the file format; rename them")
        for name, rows in (("pool_3", self.pool_3), ("logits", self.logits)):
            if rows is not None:
                check_matrix(f"statistics, {name}", rows, columns=mean.size if name == "pool_3" else None)
                if len(rows) != self.count:
                    raise MetricError(f"statistics: {len(rows)} rows of {name} for a count of {self.count}")

    @classmethod
    def from_activations(
        cls, pool_3: Any, logits: Any = None, *, header: Mapping[str, Any], keep_activations: bool = True
    ) -> Self:
        """Statistics of activations [n, D] and logits [n, K] (optional); moments only if not ``keep_activations``."""
        pool_3 = check_matrix("pool_3", pool_3)
        mean, cov = moments(pool_3)
        if not keep_activations:
            return cls(mean, cov, len(pool_3), header)
        logits = None if logits is None else check_matrix("logits", logits).astype(np.float32, copy=False)
        return cls(mean, cov, len(pool_3), header, pool_3.astype(np.float32, copy=False), logits)

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the numbers: of the activations if kept, otherwise of the moments."""
        if self.pool_3 is not None:
            return _sha256(self.pool_3)
        return hashlib.sha256((_sha256(self.mean) + _sha256(self.cov)).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the file at ``path`` (atomically; the name should end in ``.npz``)."""
        arrays = {"mu": self.mean, "sigma": self.cov, "pool_3": self.pool_3, "logits": self.logits}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        header = dict(self.header) | {
            "format": FORMAT,
            "version": VERSION,
            "count": self.count,
            "sha256": {name: _sha256(array) for name, array in arrays.items()},
        }
        buffer = io.BytesIO()
        np.savez(buffer, header=np.array(json.dumps(header, sort_keys=True)), **arrays)
        atomic_write(Path(path), buffer.getvalue())


def load_statistics(path: str | Path, *, assume: Mapping[str, Any] | None = None) -> Statistics:
    """Read and verify a statistics file of any of the three kinds.

    Arguments:
        path: the ``.npz`` file.
        assume: header fields known from elsewhere (``{"extractor": ..., "dataset": ...}``). They fill what the file
            leaves unknown and may not contradict what it says.

    Raises:
        MetricUsageError: missing, unreadable or of no known kind; contents that do not fit the header or are no
            statistics; an assumption the header contradicts.
    """
    path = Path(path)
    arrays, text = _read_arrays(path)
    stored = {} if text is None else _verified_header(path, text, arrays)
    count = stored.pop("count", None)
    for field, value in (assume or {}).items():
        if stored.get(field) not in (None, value):
            raise MetricUsageError(f"{path}: {field} is {stored[field]!r}, not {value!r} as assumed; use another file")
        stored[field] = value
    try:
        if "pool_3" in arrays and "mu" not in arrays:
            return Statistics.from_activations(arrays["pool_3"], arrays.get("logits"), header=stored)
        pool_3 = arrays.get("pool_3")
        if count is None and pool_3 is not None:
            count = len(pool_3)
        return Statistics(arrays["mu"], arrays["sigma"], count, stored, pool_3, arrays.get("logits"))
    except MetricError as error:
        raise MetricUsageError(f"{path}: {error}") from error


def original_statistics_path(dataset: str, category: str | None, image_size: int) -> Path | None:
    """Where score_sde looks for the activations of the training data, relative to the current folder.

    Arguments:
        dataset: name, in any case.
        category: of LSUN.
        image_size: in pixels.

    Returns:
        ``assets/stats/...npz``, whether it exists or not; None for a dataset that has no such file there.
    """
    names = {
        "cifar10": "cifar10_stats.npz",
        "celeba": "celeba_stats.npz",
        "lsun": f"lsun_{category}_{image_size}_stats.npz" if category else None,
    }
    name = names.get(dataset.lower())
    return Path("assets", "stats", name) if name else None


def check_comparable(samples: Statistics, reference: Statistics) -> list[str]:
    """Refuse a comparison across extractors.

    Returns:
        Warnings: what could not be checked because a file does not say it.

    Raises:
        MetricUsageError: different extractors, different weights of one extractor, or different numbers of features.
    """
    for field in ("extractor", "extractor_sha256"):
        ours, theirs = samples.header[field], reference.header[field]
        if ours is not None and theirs is not None and ours != theirs:
            raise MetricUsageError(
                f"samples were measured with {_describe_extractor(samples)}, the reference with "
                f"{_describe_extractor(reference)}; recompute one of them with the other's extractor"
            )
    if samples.mean.size != reference.mean.size:
        raise MetricUsageError(
            f"samples have {samples.mean.size} features ({_describe_extractor(samples)}), the reference "
            f"{reference.mean.size} ({_describe_extractor(reference)}); recompute one with the other's extractor"
        )
    sides = (("samples", samples), ("reference", reference))
    return [f"the extractor of the {side} is unknown" for side, of in sides if of.header["extractor"] is None]


def _describe_extractor(statistics: Statistics) -> str:
    name, sha256 = statistics.header["extractor"], statistics.header["extractor_sha256"]
    if name is None:
        return "an unknown extractor"
    return f"extractor {name!r}" + ("" if sha256 is None else f" (SHA-256 {sha256[:12]})")


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], str | None]:
    """The known arrays of the file, and its header text if it has one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = set(file.files)
            arrays = {name: file[name] for name in ("mu", "sigma", "pool_3") if name in names}
            text = str(file["header"]) if "header" in names else None
            try:
                arrays |= {"logits": file["logits"]} if "logits" in names else {}
            except ValueError:  # a pickled None, written by the original for extractors without logits
                names.remove("logits")
    except FileNotFoundError as error:
        raise MetricUsageError(f"{path}: no such statistics file; compute it or put the original's there") from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise MetricUsageError(f"{path}: not a readable statistics file ({error}); copy or compute it again") from error
    if "pool_3" not in arrays and not {"mu", "sigma"} <= arrays.keys():
        raise MetricUsageError(f"{path}: holds {sorted(names)}, expected `pool_3`, or `mu` and `sigma`")
    return arrays, text


def _verified_header(path: Path, text: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The header's facts, after every array was compared with it."""
    try:
        header = json.loads(text)
        found = header.pop("format"), header.pop("version")
        sums = dict(header.pop("sha256"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MetricUsageError(f"{path}: unreadable header ({error}); compute the statistics again") from error
    if found != (FORMAT, VERSION):
        raise MetricUsageError(f"{path}: header says {found}, this version reads {(FORMAT, VERSION)}; compute it again")
    for name in sums.keys() | arrays.keys():
        if name not in arrays or _sha256(arrays[name]) != sums.get(name):
            raise MetricUsageError(f"{path}: `{name}` does not match the file's header; copy or compute the file again")
    return header


def _sha256(array: np.ndarray) -> str:
    """Of dtype, shape and bytes in C order."""
    digest = hashlib.sha256(f"{array.dtype.str}{list(array.shape)}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
