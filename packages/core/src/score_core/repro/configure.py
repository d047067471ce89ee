"""``python -m score_core.repro.configure``: a packaged YAML configuration with some keys changed, as a file.

    python -m score_core.repro.configure ncsnv2:cifar10 FILE --option sampling.denoise=false

For programs that take a configuration file and no single keys.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError, run_main
from score_core.runs.namespace_config import load_namespace, parse_namespace, to_dict

# Keys that a program of that package reads, and that no packaged file sets.
_MORE = {"ncsnv2": ("model.architecture", "data.path", "data.download", "fast_fid.statistics")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(parser().parse_args(arguments)))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m score_core.repro.configure", description="Write a configuration.")
    made.add_argument("config", metavar="PACKAGE:NAME")
    made.add_argument("file", type=Path)
    made.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="change a key, repeatable")
    return made


def _main(options: argparse.Namespace) -> int:
    write_config(options.config, options.file, options.option)
    return 0


def write_config(name: str, file: Path, options: Sequence[str] = ()) -> None:
    """Write what :func:`changed` gives, unless the file holds it already.

    Raises:
        UsageError: as :func:`changed`.
    """
    contents = yaml.safe_dump(changed(name, options), sort_keys=False).encode()
    if not file.is_file() or file.read_bytes() != contents:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, contents)


def changed(name: str, options: Sequence[str]) -> dict[str, Any]:
    """The configuration ``package:name`` with ``section.key=value`` changed, in plain form.

    Raises:
        UsageError: there is no such configuration, or a key is none of the package's.
    """
    package, _, short = name.partition(":")
    folder = Path(str(resources.files(package).joinpath("configs")))
    files = {file.stem: file for file in sorted(folder.glob("*.yml"))}
    if short not in files:
        raise UsageError(f"{package} has no configuration {short!r}. It has {', '.join(files)}.")
    known = {key for file in files.values() for key in _keys(to_dict(load_namespace(file)))}
    known.update(_MORE.get(package, ()))
    config: dict[str, Any] = to_dict(load_namespace(files[short]))
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or key not in known:
            raise UsageError(f"--option {option}: expected section.key=value with a key of {package}.")
        section, entry = key.split(".", 1)
        config.setdefault(section, {})[entry] = to_dict(parse_namespace(f"value: {text}"))["value"]
    return config


def _keys(config: dict[str, Any]) -> list[str]:
    return [f"{section}.{key}" for section, entries in config.items() for key in entries]


if __name__ == "__main__":
    sys.exit(main())
