"""The ``score-data`` command: which datasets there are, what is in them, and the largest noise scale for one.

    score-data list [--root DIR]
    score-data inspect DATASET [--split train|test] [--max-images N]
    score-data grid DATASET --out FILE [--n N] [--seed SEED]
    score-data sigma-max DATASET [--max-images N] [--seed SEED] [--write-config FILE --base NAME]

All but ``list`` take --image-size, --num-channels, --path, --root, --category and --download as well, which mean what
--config.data.* mean to a program. Exit status: 0, or 2 for a wrong command line and missing or damaged data.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from score_core.errors import UsageError, run_main

if TYPE_CHECKING:
    from score_core.data.source import Source

_EXACT_UP_TO, _DRAWN = 60_000, 10_000
"""What NCSNv2 did: every pair up to here, else the pairs of so many images."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    try:
        status = run_main(lambda: _main(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # `score-data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 128 + signal.SIGPIPE
    return status


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    command(options)
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="score-data", description="Look at the data that models are trained on.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--root", metavar="DIR", help="folder of all datasets (default: $SCORE_DATA, else data)")
    common = argparse.ArgumentParser(add_help=False, parents=[root])
    common.add_argument("dataset", metavar="DATASET", help="a name that `score-data list` prints")
    common.add_argument("--image-size", type=_count, metavar="N", help="pixels (default: the dataset's usual size)")
    common.add_argument("--num-channels", type=_count, metavar="N", help="default: the dataset's own")
    common.add_argument("--path", type=Path, help="the dataset's own file or folder; needed by folder, npz and zip")
    common.add_argument("--category", metavar="NAME", help="the LSUN category, such as church_outdoor")
    common.add_argument("--download", action="store_true", help="fetch the dataset if it is not there and can be")
    split = argparse.ArgumentParser(add_help=False)
    split.add_argument("--split", choices=("train", "test"), default="train")
    seed = argparse.ArgumentParser(add_help=False)
    seed.add_argument("--seed", type=int, default=0, help="of the choice of images (default: 0)")
    force = argparse.ArgumentParser(add_help=False)
    force.add_argument("--force", action="store_true", help="write over a file that exists")

    listing = commands.add_parser("list", parents=[root], help="datasets, what to put where, and which are there")
    listing.set_defaults(run=_list)

    inspect = commands.add_parser("inspect", parents=[common, split, seed], help="numbers of a dataset")
    inspect.add_argument(
        "--max-images", type=_count, default=_DRAWN, metavar="N", help=f"images to look at (default: {_DRAWN:,})"
    )
    inspect.set_defaults(run=_inspect)

    grid = commands.add_parser("grid", parents=[common, split, seed, force], help="a picture of some images")
    grid.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG file to write")
    grid.add_argument("--n", type=_count, default=64, metavar="N", help="number of images (default: 64)")
    grid.set_defaults(run=_grid)

    sigma_max = commands.add_parser(
        "sigma-max",
        parents=[common, seed, force],
        help="the largest noise scale for a dataset",
        description="The largest Euclidean distance between two training images in [0, 1], which is what sigma_max of "
        "a VE SDE (and sigma_1 of NCSNv2) should be.",
    )
    sigma_max.add_argument(
        "--max-images",
        type=_count,
        metavar="N",
        help=f"draw N images if there are more (default: {_DRAWN:,} if there are more than {_EXACT_UP_TO:,})",
    )
    sigma_max.add_argument("--write-config", type=Path, metavar="FILE", help="also write a configuration of score_sde")
    sigma_max.add_argument("--base", metavar="NAME", help="the packaged configuration to derive it from")
    sigma_max.set_defaults(run=_sigma_max)
    return parser


def _load(options: argparse.Namespace, split: str) -> "Source":
    from score_core.data.sources import ALIASES, SOURCES, load_source

    size, name = options.image_size, options.dataset.lower()
    name = ALIASES.get(name, name)
    if size is None and name in SOURCES:
        size = SOURCES[name].layout.image_size
        if size is None:
            raise UsageError(f"dataset {options.dataset!r} has no usual image size. Cure: --image-size.")
    return load_source(
        options.dataset,
        split,
        image_size=size or 1,  # of an unknown dataset, which is refused
        num_channels=options.num_channels,
        root=options.root,
        path=options.path,
        download=options.download,
        category=options.category,
    )


def _title(source: "Source") -> str:
    height, width, channels = source.shape
    return f"{source.name}, {source.split} split: {len(source):,} images of {height}x{width}x{channels}"


def _refuse_to_overwrite(file: Path, force: bool) -> None:
    if file.exists() and not force:
        raise UsageError(f"{file} exists. Cure: another name, or --force to write over it.")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {file.absolute().parent} for {file.name}. Cure: make it.")


def _list(options: argparse.Namespace) -> None:
    from textwrap import indent, wrap

    from score_core.data.sources import SOURCES, data_root

    root = data_root(options.root)
    print(f"Datasets are looked for in {root}; change it with --root or the environment variable SCORE_DATA.")
    for name, (_, layout) in SOURCES.items():
        found = [file.relative_to(root).as_posix() for file in layout.present(root)]
        if layout.embedded:
            state, more = "embedded", ""
        elif not layout.files:
            state, more = "your own", f"put {layout.put} (here: --path)"
        elif found:
            state, more = "present", f"found: {', '.join(found)}"
        else:
            state, more = "missing", f"put into {root / layout.folders[0]}: {layout.put}"
        print(f"\n{name:16}{state:10}{layout.about}")
        if more:
            print(indent("\n".join(wrap(more, 94, break_long_words=False, break_on_hyphens=False)), " " * 26))


def _inspect(options: argparse.Namespace) -> None:
    from score_core.data.sources import SOURCES
    from score_core.data.survey import draw, summarize

    source = _load(options, options.split)
    indices = draw(source, options.max_images, options.seed)
    summary = summarize(source, indices)
    published = SOURCES[source.name].layout.counts.get(source.split)
    print(_title(source))
    if published is not None:
        print(f"published split  {published:,} images{'' if published == len(source) else ': THESE ARE NOT ALL'}")
    print(f"looked at        {'all' if len(indices) == len(source) else f'{len(indices):,} (seed {options.seed})'}")
    print(f"classes          {source.num_classes or 'no labels'}")
    if summary.labels is not None:
        shown = [f"{label}: {count:,}" for label, count in enumerate(summary.labels[:20])]
        more = f", .. ({len(summary.labels) - 20} more)" if len(summary.labels) > 20 else ""
        print(f"labels           {', '.join(shown)}{more}")
    print(f"mean of channels {', '.join(f'{value:.4f}' for value in summary.mean)} (images in [0, 1])")
    print(f"std of channels  {', '.join(f'{value:.4f}' for value in summary.std)}")
    print(f"fingerprint      {source.fingerprint}")
    print(f"reading          {1000 * summary.seconds / len(indices):.3f} seconds for 1000 images")


def _grid(options: argparse.Namespace) -> None:
    from score_core.data.images import image_grid, save_png
    from score_core.data.survey import draw

    _refuse_to_overwrite(options.out, options.force)
    source = _load(options, options.split)
    indices = draw(source, options.n, options.seed)
    save_png(options.out, image_grid(source.fetch(indices)[0]))
    print(f"{_title(source)}; {len(indices)} of them in {options.out}")


def _sigma_max(options: argparse.Namespace) -> None:
    from score_core.data.distances import max_pairwise_distance
    from score_core.data.own_config import OwnData, check_base, write_config
    from score_core.data.survey import draw, gather

    if (options.write_config is None) != (options.base is None):
        raise UsageError("--write-config and --base belong together. Cure: give both, such as --base photos.")
    source = _load(options, "train")
    if len(source) < 2:
        raise UsageError(f"{_title(source)}; expected at least two for a distance.")
    if options.write_config is not None:  # before the work, not after it
        _refuse_to_overwrite(options.write_config, options.force)
        check_base(options.base, source.shape[0])
    most = options.max_images or (_EXACT_UP_TO if len(source) <= _EXACT_UP_TO else _DRAWN)
    indices = draw(source, max(most, 2), options.seed)
    pair = max_pairwise_distance(gather(source, indices), progress=True)
    if len(indices) == len(source):
        how = f"exact, over all pairs of {len(source):,} images"
    else:
        how = f"over all pairs of {len(indices):,} images drawn from {len(source):,} with seed {options.seed}"
    sigma_max = round(pair.distance, 4)
    print(_title(source))
    print(f"sigma_max = {sigma_max} ({how})")
    print(f"images {indices[pair.first]} and {indices[pair.second]} are that far apart")
    if options.write_config is None:
        return
    data = OwnData(
        dataset=source.name,
        image_size=source.shape[0],
        num_channels=source.shape[2],
        path="" if options.path is None else str(options.path.absolute()),
        root="" if options.root is None else str(Path(options.root).absolute()),
        category=options.category or "",
    )
    reason = f"sigma_max is the largest Euclidean distance between two training images, {how}."
    write_config(options.write_config, options.base, data, sigma_max, reason)
    print(f"wrote {options.write_config}; train with: python -m score_sde --config {options.write_config} --mode train")


if __name__ == "__main__":
    sys.exit(main())
