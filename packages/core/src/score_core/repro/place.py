"""``python -m score_core.repro.place``: puts a checkpoint where a stage looks for it, converted if need be.

    python -m score_core.repro.place SRC DST --keep FORMAT [FORMAT ...] [--config PACKAGE:NAME]
                                  [--write PACKAGE:NAME FILE]

SRC is what ``score-convert`` takes. A file in one of the formats of ``--keep`` is copied as it is, any other is
converted into the first of them. DST gets the suffix .pth if the file is of that format. A DST that holds the same
already is left alone; another one is not written over. ``--write`` is for programs that look for a configuration
beside it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.errors import CheckpointError
from score_core.errors import UsageError, run_main
from score_core.repro.configure import write_config


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(parser().parse_args(arguments)))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m score_core.repro.place", description="Put a checkpoint into place.")
    made.add_argument("source", type=Path, metavar="SRC")
    made.add_argument("target", type=Path, metavar="DST")
    made.add_argument("--keep", nargs="+", required=True, metavar="FORMAT", help="formats that are copied as they are")
    made.add_argument("--config", metavar="PACKAGE:NAME", help="the network's configuration, for conversion")
    made.add_argument("--write", nargs=2, metavar=("PACKAGE:NAME", "FILE"), help="also write a YAML configuration")
    return made


def _main(options: argparse.Namespace) -> int:
    place(options.source, options.target, options.keep, options.config)
    if options.write:
        name, file = options.write
        write_config(name, Path(file))
    return 0


def place(source: Path, target: Path, keep: Sequence[str], config: str | None = None) -> Path:
    """Put a checkpoint into place; returns where.

    Arguments:
        source: a checkpoint of any known format, a folder of them, or a work directory.
        target: where to, without the suffix of a format.
        keep: the formats that are copied as they are; others are converted into the first.
        config: of its network, as ``score-convert`` takes it; needed to convert, and to see that it is the network's.

    Raises:
        CheckpointError, UsageError: it is missing, damaged, of an unknown format or of another network; or another file
            is there.
    """
    from score_core.checkpoints.convert import Report, convert, load_formats, open_source, read_source
    from score_core.checkpoints.providers import load_config

    load_formats()
    found = open_source(source)
    name = found.name
    if name in keep:
        content: bytes = found.data
        if config is not None:
            with _hint(source):
                read_source(found, load_config(config), Report())  # whole, and of that network
    else:
        if config is None:
            raise UsageError(
                f"{source} is in the format {name}, expected {' or '.join(keep)}. Convert it with score-convert."
            )
        with _hint(source):
            content, _ = convert(found, keep[0], load_config(config))
    written = keep[0] if name not in keep else name
    if written == "pth" and target.suffix != ".pth":
        target = target.with_name(f"{target.name}.pth")
    if target.exists():
        if target.read_bytes() != content:
            raise UsageError(f"{target} is another checkpoint than {source}. Choose another --workdir.")
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, content)
    print(f"{source} ({name}) is in place as {target}" + ("" if written == name else f", converted to {written}"))
    return target


@contextmanager
def _hint(source: Path) -> Iterator[None]:
    """Says how to find out which network a checkpoint is of, if it is not the one expected."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error} `score-convert --identify {source}` says which networks it fits.") from error


if __name__ == "__main__":
    sys.exit(main())
