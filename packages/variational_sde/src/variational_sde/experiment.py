"""What a command line means: data, network, SDE, output folder, configuration to record.

data      images            network
mnist     28x28x1           ch 32, mult 1,2,2, 2 blocks, attention at 16 (that is: in the middle only)
cifar     32x32x3, flipped  ch 128, mult 1,2,2,2, 2 blocks, attention at 16
digits    16x16x1           that of mnist: 16, 8, 4 pixels, with attention at 16
photos    32x32x3, flipped  ch 64, mult 1,2,2, 1 block, attention at 8
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_core.data.errors import DataError, MissingDataError
from score_core.errors import UsageError
from variational_sde.flags import ORIGINAL

__all__ = ["DATASETS", "FREE_KEYS", "Dataset", "config_of", "load_data", "network_options", "run_folder"]


@dataclass(frozen=True)
class Dataset:
    """A data set and the network that goes with it."""

    source: str
    image_size: int
    channels: int
    flip: bool
    network: dict[str, Any]
    files: str = ""


_SMALL = {"ch": 32, "ch_mult": (1, 2, 2), "num_res_blocks": 2, "attn_resolutions": (16,)}

DATASETS = {
    "mnist": Dataset(
        "mnist",
        28,
        1,
        False,
        _SMALL,
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte "
        "(packed as .gz or not) into {root}/MNIST/raw",
    ),
    "cifar": Dataset(
        "cifar10",
        32,
        3,
        True,
        {"ch": 128, "ch_mult": (1, 2, 2, 2), "num_res_blocks": 2, "attn_resolutions": (16,)},
        "cifar-10-python.tar.gz (or its folder cifar-10-batches-py) into {root}/cifar10",
    ),
    "digits": Dataset("digits", 16, 1, False, _SMALL),
    "photos": Dataset(
        "photos", 32, 3, True, {"ch": 64, "ch_mult": (1, 2, 2), "num_res_blocks": 1, "attn_resolutions": (8,)}
    ),
}

FREE_KEYS = (
    *ORIGINAL[1:8],  # files and cadences
    "test_batch_size",
    "device",
    "download",
    "protocol",
    "repeats",
    "lmbd",
    "final_checkpoint",
    "original_checkpoint",
)
"""What may differ from start to start of one folder without changing a number that training produces."""


def run_folder(args: argparse.Namespace) -> Path:
    """The output folder, with the original's names of folders."""
    name = "-".join(
        str(value) for value in (args.dataset, args.real, args.debias, args.batch_size, args.lr, args.num_iterations)
    )
    # Not the original's: it writes into a folder called `~`.
    return Path(args.saveroot).expanduser() / "sde-flow" / args.expname / name


def config_of(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that a run depends on, for the record in its folder."""
    config = {key: value for key, value in vars(args).items() if key != "force"}
    return config | {"real": bool(args.real), "debias": bool(args.debias), "network": network_options(args)}


def network_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :class:`variational_sde.torch.unet.UNet`.

    Raises:
        UsageError: a size that the data set does not have.
    """
    data = DATASETS[args.dataset]
    size = args.image_size or data.image_size
    if size != data.image_size and data.files:
        raise UsageError(f"--image_size={size}: {args.dataset} has {data.image_size} pixels; leave the flag out")
    options = {"input_channels": data.channels, "input_height": size, **data.network, "dropout": args.dropout}
    given = {key: getattr(args, key) for key in data.network if getattr(args, key) is not None}
    return options | given


def load_data(dataset: str, split: str, image_size: int, dataroot: str, download: bool) -> Any:
    """One split of a data set (:class:`score_core.data.source.Source`).

    Raises:
        UsageError: it is not there, with what to put where; or its files are damaged.
    """
    from score_core.data import load_source

    data = DATASETS[dataset]
    root = Path(dataroot).expanduser()
    try:
        return load_source(
            data.source, split, image_size=image_size, num_channels=data.channels, root=root, download=download
        )
    except MissingDataError as error:
        hint = "" if "SCORE_DATA" not in os.environ else f", or give --dataroot={os.environ['SCORE_DATA']}"
        raise UsageError(
            f"the data set {dataset!r} is not in {root}. Put {data.files.format(root=root)}, let it be fetched with "
            f"--download=True{hint}, or take data that comes along: --dataset=digits (or photos)."
        ) from error
    except DataError as error:
        raise UsageError(str(error)) from error
