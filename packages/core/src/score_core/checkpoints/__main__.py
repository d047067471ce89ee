"""The ``score-convert`` command: checkpoints of one program as those of another.

    score-convert SRC DST --to FORMAT --config NAME      converts; prints what became of every kind of name
    score-convert --inspect SRC [--config NAME]          what is in a file
    score-convert --identify SRC                         which configurations and official checkpoints it can be
    score-convert --manifest [NAME]                      the official checkpoints that are known

Exit status: 0; 1 for a file that cannot be read or does not fit, an identification without a result, or a verification
above its tolerance; 2 for a wrong command line.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.checkpoints.errors import printable
from score_core.errors import UsageError, UserError, run_main

_EPILOG = """SRC is a file, a folder with checkpoint_N, a run's work directory, or a diffusers folder. FORMAT:
flax (JAX program, msgpack), pth (PyTorch program), safetensors, diffusers (UNet2DModel, a folder), and those of
installed packages. NAME: a packaged configuration of score_sde, a Python file, or PACKAGE:NAME; not needed if SRC
carries its configuration (safetensors, work directories)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    actions = options.inspect + options.identify + (options.target is not None) + (options.manifest is not None)
    if actions != 1 or (options.source is None and options.manifest is None):
        raise UsageError(
            "give one of: SRC DST with --to, SRC --inspect, SRC --identify, --manifest. See score-convert --help."
        )
    if options.manifest is not None:
        return _manifest(options.manifest)
    from score_core.checkpoints.convert import load_formats

    load_formats()
    if options.identify:
        return _identify(options)
    if options.inspect:
        return _inspect(options)
    return _convert(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="score-convert",
        description="Checkpoints of one program as another's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, nargs="?", metavar="SRC", help="a checkpoint: file or folder")
    add("target", type=Path, nargs="?", metavar="DST", help="the file or folder to write")
    add("--to", metavar="FORMAT", help="flax, pth, safetensors, diffusers, or a package's")
    add("--config", metavar="NAME", help="the network's configuration: NAME or a file of score_sde, or PACKAGE:NAME")
    add("--step", type=int, metavar="N", help="which checkpoint_N of a folder (default: the newest)")
    add("--weights", choices=("raw", "ema", "both"), help="one set of weights and nothing else, or everything")
    add("--norms", choices=("old", "new"), default="old", help="GroupNorm in Flax files: [1,1,1,C] (default) or [C]")
    add("--no-module", action="store_true", help="write .pth keys without the prefix module.")
    add("--verify", action="store_true", help="run both networks on the same inputs and compare")
    add("--tolerance", type=float, default=1e-4, help="of --verify, relative to the largest output (default 1e-4)")
    add("--report", type=Path, metavar="FILE.json", help="write what became of every name")
    add("--inspect", action="store_true", help="print what is in SRC")
    add("--identify", action="store_true", help="print the configurations whose parameters SRC has")
    add("--manifest", nargs="?", const="", metavar="NAME", help="print the known official checkpoints (named so)")
    add("--force", action="store_true", help="write over DST if it exists")
    add("--verbose", action="store_true", help="print every name")
    return parser


def _config(name: str | None, source: Any) -> Any:
    """The configuration of that name in whichever installed package knows it; without a name, the checkpoint's own."""
    from score_core.checkpoints.convert import own_config
    from score_core.checkpoints.providers import load_config

    return own_config(source) if name is None else load_config(name)


def _manifest(text: str) -> int:
    from score_core.checkpoints.manifest import find

    print("\n".join(map(str, find(text))))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    import numpy as np

    from score_core.checkpoints.convert import Report, open_source, read_source
    from score_core.checkpoints.formats import SCORE_SDE
    from score_core.checkpoints.training_state import flavor_of, parameter_sets
    from score_core.checkpoints.tree import flatten

    source = open_source(options.source, options.step)
    config = _config(options.config, source)
    tree = read_source(source, config, Report())
    print(f"format       {source.name}")
    if source.format.family != SCORE_SDE:
        return _print_names(flatten(tree), verbose=True)
    if "step" in tree:
        print(f"step         {int(tree['step'])} (Adam: {int(tree['optimizer']['state']['step'])})")
        print(f"lr           {float(np.asarray(tree['lr'])):g}")
        print(f"ema_rate     {float(np.asarray(tree['ema_rate'])):g}")
    print(f"flavor       {flavor_of(tree)}")
    sets = parameter_sets(tree)
    for name, params in sets.items():
        bad = [key for key, value in flatten(params).items() if not np.isfinite(value).all()]
        if bad:
            print(f"NOT FINITE   {name}: {printable(', '.join(bad[:5]))}")
    params = flatten(next(iter(sets.values())))
    print(f"parameters   {sum(np.size(value) for value in params.values()):,} in {len(params)} arrays")
    return _print_names(params, options.verbose)


def _print_names(flat: dict[str, Any], verbose: bool) -> int:
    import numpy as np

    for path, value in flat.items() if verbose else ():
        array = np.asarray(value)
        print(f"  {printable(path)}  {array.shape}  {array.dtype}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    from score_core.checkpoints.convert import FORMATS, Options, Report, convert, open_source

    if options.to is None:
        raise UsageError("--to is missing: flax, pth, safetensors, diffusers, or a package's format.")
    _require_free(options.target, options.force)
    source = open_source(options.source, options.step)
    path, name = source.path, source.name
    config = _config(options.config, source)
    formats = [source.format, *([FORMATS[options.to]] if options.to in FORMATS else [])]
    if config is None and any(format_.needs_config for format_ in formats):
        raise UsageError("--config is missing: the network's configuration. score-convert --identify SRC may find it.")
    report = Report()
    choices = Options(options.weights, options.norms, not options.no_module)
    outcome: dict[str, Any] = {}
    try:
        content, _ = convert(source, options.to, config, choices, report)
        _write(options.target, content, options.to)
        _summarise(report, options.verbose)
        if options.verify:
            outcome = _verify((name, path), (options.to, options.target), config, options)
    except UserError as error:
        outcome = {"error": str(error)}
        raise
    finally:
        if options.report is not None:
            _write_report(options, (name, path), config, report, outcome)
    return 0 if outcome.get("within_tolerance", True) else 1


def _require_free(target: Path, force: bool) -> None:
    if target.exists() and not (force and target.is_file()):
        cure = "or --force to write over it" if target.is_file() else "or remove the folder"
        raise UsageError(f"{target} exists. Choose another name, {cure}.")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {target.absolute().parent} for {target.name}. Make it.")


def _write(target: Path, content: Any, format_: str) -> None:
    from score_core.checkpoints.atomic import atomic_write
    from score_core.checkpoints.folders import write_folder

    if isinstance(content, dict):
        write_folder(target, content)
        size = sum(map(len, content.values()))
    else:
        atomic_write(target, content)
        size = len(content)
    print(f"wrote {target} ({format_}, {size:,} bytes)")


def _summarise(report: Any, verbose: bool) -> None:
    print(
        f"{len(report.copied)} parameters copied, {len(report.reshaped)} transposed or flattened, "
        f"{len(report.missing)} missing, {len(report.unused)} unused"
    )
    for note in report.notes:
        print(f"note: {printable(note)}")
    if verbose:
        for before, after in report.copied + report.reshaped:
            print(f"  {printable(before)} -> {printable(after)}")


def _verify(one: tuple[str, Path], other: tuple[str, Path], config: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the networks, set by set; what the report says of it."""
    from score_core.checkpoints.verify import compare_outputs

    if config is None:
        raise UsageError("--verify needs the configuration of the network: --config NAME.")
    if options.weights in ("raw", "ema"):
        sets = [options.weights]
    else:
        sets = ["ema"] if other[0] == "diffusers" and options.weights is None else ["raw", "ema"]
    found, good = {}, True
    for weights in sets:
        difference, largest = compare_outputs(one, other, config, weights)
        relative = difference / largest if largest else difference
        # "not >" would pass a NaN
        within = relative <= options.tolerance
        good &= within
        found[weights] = {"largest_difference": difference, "largest_output": largest}
        print(
            f"verified {weights}: largest difference {difference:.3g} of outputs up to {largest:.3g} "
            f"({relative:.1e}, tolerance {options.tolerance:g}): {'good' if within else 'TOO LARGE'}"
        )
    return {"verified": found, "tolerance": options.tolerance, "within_tolerance": good}


def _write_report(
    options: argparse.Namespace, source: tuple[str, Path], config: Any, report: Any, outcome: dict[str, Any]
) -> None:
    from score_core.checkpoints.atomic import atomic_write

    content = {
        "source": {"path": str(source[1]), "format": source[0]},
        "target": {"path": str(options.target), "format": options.to},
        "config": options.config,
        "model": {"name": getattr(getattr(config, "model", None), "name", None), "flavor": report.flavor},
        "matched": report.copied,
        "reshaped": report.reshaped,
        "missing": report.missing,
        "unused": report.unused,
        "notes": report.notes,
        **outcome,
    }
    atomic_write(options.report, (json.dumps(content, indent=1) + "\n").encode())


def _identify(options: argparse.Namespace) -> int:
    """Prints the names of the configurations that fit; the status is 1 if none does."""
    from score_core.checkpoints.identify import identify
    from score_core.checkpoints.providers import config_loaders

    found = identify(options.source, {name: load() for name, load in config_loaders()}, options.step)
    print("\n".join(found.configs) if found.configs else "no packaged configuration has these parameters")
    if found.entries:
        print("\nofficial checkpoints that it can be:")
        print("\n".join(str(entry) for entry in found.entries))
    if found.skipped:
        print(f"not compared (there is no list of their parameters): {', '.join(found.skipped)}", file=sys.stderr)
    return 0 if found.configs else 1


if __name__ == "__main__":
    sys.exit(main())
