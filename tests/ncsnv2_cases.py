"""For the tests of ncsnv2: tiny networks filled by the golden rule, and a tiny CIFAR-10 on disk."""

from argparse import Namespace
from pathlib import Path

import goldens
import numpy as np
import torch
import torch_goldens

from ncsnv2.config import check_config
from ncsnv2.networks import make_network
from score_core.runs.namespace_config import to_namespace

GOLDEN_CONFIGS = goldens.load("ncsnv2", "cli_runs.json")["configs"]


def golden_config(**changes) -> Namespace:
    """The tiny configuration of the golden command lines, with ``section__key=value`` changed; checked for training."""
    config = to_namespace(GOLDEN_CONFIGS["tiny.yml"])
    for name, value in changes.items():
        section, key = name.split("__")
        setattr(getattr(config, section), key, value)
    check_config(config, "train")
    return config


def golden_network(model: str, **settings) -> torch.nn.Module:
    """A network of the goldens (10 levels from 50 to 0.01, 4 features, unless said otherwise), filled by the rule."""
    given = {"ngf": 4, "num_classes": 10, "sigma_begin": 50, "sigma_end": 0.01, **settings}
    size = given.pop("size", given.pop("image_size", 8))
    changes = {f"model__{key}": value for key, value in given.items()}
    config = golden_config(model__architecture=model, data__image_size=size, **changes)
    network = torch_goldens.fill(make_network(config, torch.device("cpu")))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith(("weight_u", "weight_v")):
                vector = goldens.fill(name, tuple(buffer.shape))
                vector = (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float32)
                buffer.copy_(torch.from_numpy(vector))
    return network


def write_cifar10(exp: Path, train: int = 22, test: int = 10) -> None:
    """Random images as CIFAR-10's binary files below ``exp/datasets``, in the original's two folders."""
    rng = np.random.default_rng(0)

    def records(count: int) -> bytes:
        table = rng.integers(0, 256, (count, 3073), np.uint8)
        table[:, 0] %= 10
        return table.tobytes()

    folders = {name: exp / "datasets" / name / "cifar-10-batches-bin" for name in ("cifar10", "cifar10_test")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    counts = [len(part) for part in np.array_split(np.arange(train), 5)]
    for k, count in enumerate(counts, 1):
        (folders["cifar10"] / f"data_batch_{k}.bin").write_bytes(records(count))
    (folders["cifar10_test"] / "test_batch.bin").write_bytes(records(test))
