"""Checkpoints from one format to another: parameters, averages, Adam's moments, counters.

    format        a checkpoint is                              names of parameters      networks
    flax          msgpack, the JAX program's checkpoint_N      Flax                     any
    pth           PyTorch, the port's checkpoint_N.pth         the port's               those of score_sde
    safetensors   the tree by flat names, configuration in     Flax, or the port's      any
                  the metadata; or one set of weights          for weights alone
    diffusers     a folder with ``UNet2DModel`` and            diffusers'               NCSN++ of 256 and 1024 pixels
                  ``ScoreSdeVeScheduler``; one set of weights

Every format is read into and written from one tree (:mod:`score_core.checkpoints.training_state`), the family
``score_sde``. A package whose network is another one registers formats of a family of its own (`formats`): then
conversion is possible within it, and across families through a registered bridge.

Where the two original programs compute different things with the same network (NCSN and NCSNv2: ``flavor`` of
:mod:`score_core.torch.networks.layers`), weights keep the flavor of the program they come from: a ``.pth`` made of JAX
weights has an entry ``flavor``, a Flax file made of PyTorch weights has it in ``model_state``, safetensors and the
report in ``model.flavor`` of the configuration.

All conversions are exact for parameters, averages, moments and counters. What one side does not have is said in the
report: the port's Dense layers that an unconditional network never calls, its count of averages, JAX's key.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_core.checkpoints import identify_shapes, verify
from score_core.checkpoints.diffusers_state import read_diffusers, recognises_diffusers, write_diffusers
from score_core.checkpoints.flax_state import read_flax, recognises_flax, write_flax
from score_core.checkpoints.formats import (
    FORMATS,
    SCORE_SDE,
    Format,
    Report,
    bridge,
    load_formats,
    register_bridge,
    register_format,
)
from score_core.checkpoints.pth_state import read_pth, recognises_pth, write_pth
from score_core.checkpoints.safetensors_state import (
    config_from_json,
    embedded_config,
    read_safetensors,
    recognises_safetensors,
    write_safetensors,
)
from score_core.checkpoints.sources import checkpoint_file, run_config
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.training_state import FLAVOR, one_set, parameter_sets, reshape_norms, whole_state
from score_core.checkpoints.tree import flatten
from score_core.errors import UsageError

__all__ = [
    "FORMATS",
    "Format",
    "Options",
    "Report",
    "Source",
    "convert",
    "detect_format",
    "load_formats",
    "open_source",
    "read_state",
    "register_bridge",
    "register_format",
]

_ONE_SET = ("diffusers",)


class Options(NamedTuple):
    """How a checkpoint is to be written; for formats of the family score_sde.

    Attributes:
        weights: "raw" or "ema": that one set and nothing else. "both": a training state, or for a format that holds one
            set a checkpoint of each. None: what the format is for, that is both, and the averages for diffusers.
        norms: GroupNorm in Flax trees as "old" ``[1, 1, 1, C]`` (the original program's and this project's networks)
            or "new" ``[C]`` (other programs with Flax since 0.3.4).
        module: whether the keys of a ``.pth`` training state have the prefix ``module.``.
    """

    weights: str | None = None
    norms: str = "old"
    module: bool = True


_DEFAULT = Options()


@dataclass
class Source:
    """A checkpoint that was found: its path, its format, its bytes (or its path, if it is a folder)."""

    path: Path
    name: str
    data: Any

    @property
    def format(self) -> Format:
        """The format."""
        return FORMATS[self.name]


def detect_format(data: Any, where: Any = "the file") -> str:
    """The name of the format of a file's bytes, or of a folder's path.

    Raises:
        UsageError: it is none of them.
    """
    # Those of packages first: they know more of a file than that it is a pickle or a msgpack.
    for name, format_ in reversed(FORMATS.items()):
        if format_.folder == isinstance(data, Path) and format_.recognises(data):
            return name
    known = "; ".join(f"{name}: {format_.about}" for name, format_ in FORMATS.items())
    raise UsageError(f"{where} is in none of the known formats ({known}).")


def open_source(path: Path, step: int | None = None) -> Source:
    """The checkpoint that a path means (see :func:`score_core.checkpoints.sources.checkpoint_file`).

    Raises:
        CheckpointError: it is missing or damaged.
        UsageError: unknown format.
    """
    if path.is_dir() and any(format_.folder and format_.recognises(path) for format_ in FORMATS.values()):
        return Source(path, detect_format(path, path), path)
    file = checkpoint_file(path, step)
    data = read_checkpoint(file)
    return Source(file, detect_format(data, file), data)


def own_config(source: Source) -> Any:
    """The configuration that a checkpoint carries, or that the run it belongs to recorded; None if there is none."""
    found = source.format.config(source.data, source.path) if source.format.config else None
    record = run_config(source.path)
    if found is None and record is not None and source.format.family == SCORE_SDE:
        found = config_from_json(record.read_text(), record)
    return found


def read_source(source: Source, config: Any, report: Report) -> dict[str, Any]:
    """The tree of a checkpoint.

    Raises:
        CheckpointError: it is damaged, or of another network than the configured one.
        UsageError: it cannot be read without a configuration.
    """
    if source.format.needs_config and config is None:
        raise UsageError(f"{source.path} ({source.name}) needs the configuration of its network: --config NAME.")
    return source.format.read(source.data, config, report, source.path)


def read_state(path: Path, config: Any = None) -> tuple[str, dict[str, Any], Report]:
    """The format of a checkpoint, its tree, and the report.

    Of the family score_sde it is a whole training state as the JAX program's files have it (a set of weights becomes
    one, of step 0), and ``report.flavor`` says whose network it is.

    Raises:
        CheckpointError, UsageError: as :func:`open_source` and :func:`read_source`.
    """
    source, report = open_source(path), Report()
    tree = read_source(source, config, report)
    if source.format.family == SCORE_SDE:
        tree = whole_state(tree, config, report)
        report.flavor = tree.pop("meta")[FLAVOR]
    return source.name, tree, report


def convert(
    source: Path | Source, target: str, config: Any, options: Options = _DEFAULT, report: Report | None = None
) -> tuple[Any, Report]:
    """The contents of a checkpoint in another format.

    Arguments:
        source: where it is, or what :func:`open_source` found, whose bytes are let go once they are read.
        target: one of :data:`FORMATS`.
        config: the configuration of the network.
        options: how to write it.
        report: is filled in, also if an error ends the conversion; None: a new one.

    Returns: bytes, or for a folder contents by relative name; and the report.

    Raises:
        CheckpointError, UsageError: as :func:`read_state`; or the target is unknown or cannot hold the network.
    """
    report = Report() if report is None else report
    if target not in FORMATS:
        raise UsageError(f"unknown format {target!r}; known: {', '.join(FORMATS)}.")
    if isinstance(source, Path):
        source = open_source(source)
    name, tree = source.name, read_source(source, config, report)
    source.data = None  # a large file need not be there twice
    tree = bridge(tree, name, target, config, report)
    if FORMATS[target].family != SCORE_SDE:
        if options != _DEFAULT:
            raise UsageError(f"--weights, --norms and --no-module are for formats of score_sde, which {target} is not.")
        return FORMATS[target].write(tree, config, report), report
    report.flavor = tree["meta"][FLAVOR]
    _note_numbers(tree, report)
    if target not in _ONE_SET and options.weights in (None, "both"):
        return _write(whole_state(tree, config, report), target, config, options, report), report
    if options.weights == "both":
        if "params" in tree:
            raise UsageError("the checkpoint holds one set of weights: give --weights raw or ema.")
        contents = {}
        for which in ("raw", "ema"):
            part = Report()
            files = _write(one_set(tree, which), target, config, options, part)
            contents |= {f"{which}/{file}": data for file, data in files.items()}
        report.copied += part.copied
        report.reshaped += part.reshaped
        report.notes += part.notes
        return contents, report
    return _write(one_set(tree, options.weights or "ema"), target, config, options, report), report


def _write(tree: dict[str, Any], target: str, config: Any, options: Options, report: Report) -> Any:
    meta = {**tree["meta"], "norms": options.norms, "module": options.module}
    content = FORMATS[target].write({**tree, "meta": meta}, config, report)
    if not (report.copied or report.reshaped):  # no name was translated
        params = next(iter(parameter_sets(tree).values()))
        folded = flatten(reshape_norms(params, old=options.norms == "old"))
        for path, value in flatten(params).items():
            same = np.shape(value) == np.shape(folded[path])
            (report.copied if same else report.reshaped).append((path, path))
    return content


def _note_numbers(tree: dict[str, Any], report: Report) -> None:
    for which, params in parameter_sets(tree).items():
        bad = [name for name, value in flatten(params).items() if not np.isfinite(value).all()]
        if bad:
            report.notes.append(f"NOT FINITE: {len(bad)} {which} parameters, such as {bad[0]}")


register_format(
    "flax",
    Format(
        "msgpack checkpoint of the JAX program",
        recognises_flax,
        read_flax,
        write_flax,
        False,
        run=verify.run_flax,
        fits=identify_shapes.flax_fits,
    ),
)
register_format(
    "safetensors",
    Format(
        "safetensors",
        recognises_safetensors,
        read_safetensors,
        write_safetensors,
        False,
        run=verify.run_safetensors,
        fits=identify_shapes.safetensors_fits,
        config=embedded_config,
    ),
)
register_format(
    "pth",
    Format(
        "PyTorch checkpoint of the port",
        recognises_pth,
        read_pth,
        write_pth,
        True,
        run=verify.run_pth,
        fits=identify_shapes.pth_fits,
    ),
)
register_format(
    "diffusers",
    Format(
        "folder of Hugging Face diffusers",
        recognises_diffusers,
        read_diffusers,
        write_diffusers,
        True,
        run=verify.run_diffusers,
        fits=identify_shapes.diffusers_fits,
        folder=True,
    ),
)
