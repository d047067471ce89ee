"""The ``score-convert`` command: checkpoints of one program as those of another.

    score-convert SRC DST --to FORMAT --config NAME      converts; prints what became of every kind of name
    score-convert --inspect SRC [--config NAME]          what is in a file
    score-convert --identify SRC                         which packaged configurations have its parameters

Exit status: 0, 1 for a file that cannot be read or does not fit, 2 for a wrong command line.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.errors import UsageError, run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="score-convert", description="Checkpoints of one program as another's.")
    parser.add_argument("source", type=Path, metavar="SRC", help="a checkpoint file")
    parser.add_argument("target", type=Path, nargs="?", metavar="DST", help="the file to write")
    parser.add_argument("--to", metavar="FORMAT", help="flax, pth or safetensors")
    parser.add_argument(
        "--config", metavar="NAME", help="the network's configuration: NAME or a file of score_sde, or PACKAGE:NAME"
    )
    parser.add_argument("--inspect", action="store_true", help="print what is in SRC")
    parser.add_argument("--identify", action="store_true", help="print the configurations whose parameters SRC has")
    parser.add_argument("--force", action="store_true", help="write over DST if it exists")
    parser.add_argument("--verbose", action="store_true", help="print every name")
    options = parser.parse_args(arguments)
    if options.inspect + options.identify + (options.target is not None) != 1:
        raise UsageError("give one of: DST with --to, --inspect, --identify. See score-convert --help.")
    _load_formats()
    if options.identify:
        return _identify(options.source)
    if options.inspect:
        _inspect(options)
    else:
        _convert(options)
    return 0


def _load_formats() -> None:
    from score_core.checkpoints.convert import load_formats

    load_formats()


def _config(name: str | None) -> Any:
    """The configuration of that name in whichever installed package knows it."""
    from score_core.checkpoints.providers import load_config

    return None if name is None else load_config(name)


def _inspect(options: argparse.Namespace) -> None:
    import numpy as np

    from score_core.checkpoints.convert import read_state
    from score_core.checkpoints.tree import flatten

    name, tree, _ = read_state(options.source, _config(options.config))
    params, averages = flatten(tree["optimizer"]["target"]), flatten(tree["params_ema"])
    print(f"format       {name}")
    print(f"step         {int(tree['step'])} (Adam: {int(tree['optimizer']['state']['step'])})")
    print(f"lr           {float(np.asarray(tree['lr'])):g}")
    print(f"ema_rate     {float(np.asarray(tree['ema_rate'])):g}")
    print(f"parameters   {sum(np.size(value) for value in params.values()):,} in {len(params)} arrays")
    bad = [key for key, value in (params | averages).items() if not np.isfinite(value).all()]
    if bad:
        print(f"NOT FINITE   {', '.join(bad[:5])}")
    if options.verbose:
        for path, value in params.items():
            print(f"  {path}  {tuple(np.shape(value))}  {np.asarray(value).dtype}")


def _convert(options: argparse.Namespace) -> None:
    from score_core.checkpoints.atomic import atomic_write
    from score_core.checkpoints.convert import convert

    if options.to is None:
        raise UsageError("--to is missing: flax, pth or safetensors.")
    if options.config is None:
        raise UsageError("--config is missing: the network's configuration. score-convert --identify SRC may find it.")
    if options.target.exists() and not options.force:
        raise UsageError(f"{options.target} exists. Choose another name, or --force to write over it.")
    data, report = convert(options.source, options.to, _config(options.config))
    if not options.target.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {options.target.absolute().parent} for {options.target.name}. Make it.")
    atomic_write(options.target, data)
    print(f"wrote {options.target} ({options.to}, {len(data):,} bytes)")
    print(f"{len(report.copied)} parameters copied, {len(report.reshaped)} transposed or flattened")
    for note in report.notes:
        print(f"note: {note}")
    if options.verbose:
        for before, after in report.copied + report.reshaped:
            print(f"  {before} -> {after}")


def _identify(source: Path) -> int:
    """Prints the names of the configurations that fit; the status is 1 if none does."""
    from score_core.checkpoints.identify import fitting_configs
    from score_core.checkpoints.providers import DEFAULT, config_loaders

    fitting, skipped = fitting_configs(source, {name: load() for name, load in config_loaders(DEFAULT)})
    print("\n".join(fitting) if fitting else "no packaged configuration has these parameters")
    if skipped:
        print(f"not compared (no list of their parameters without a framework): {', '.join(skipped)}", file=sys.stderr)
    return 0 if fitting else 1


if __name__ == "__main__":
    sys.exit(main())
