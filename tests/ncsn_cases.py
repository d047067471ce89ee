"""The original NCSN's recorded training runs: batches, random numbers, and the programs they are fed to."""

import functools

import goldens
import torch
from torch_goldens import fill

from ncsn.config import check_config, complete
from ncsn.training import PROGRAMS
from score_core.runs.namespace_config import to_namespace
from score_core.torch.score_runner import unwrapped

CASES = goldens.load("ncsn", "train.json")


@functools.cache
def arrays():
    return goldens.load("ncsn", "train.npz")


def array(case, name):
    key = f"{case}/{name}"
    return arrays()[CASES["_same_as"].get(key, key)]


class RecordedDraws:
    """Replays arrays, whatever kind of number is asked for; their shapes must fit."""

    def __init__(self, values):
        self.values = iter(values)

    def _next(self, shape):
        value = torch.tensor(next(self.values))
        assert tuple(value.shape) == tuple(shape)
        return value

    def uniform(self, like):
        return self._next(like.shape)

    def normal(self, like, repeats=1):
        return self._next((repeats * len(like), *like.shape[1:]))

    def labels(self, like, num_classes):
        labels = self._next((len(like),)).long()
        assert labels.max() < num_classes
        return labels


def program_of(case):
    config = to_namespace({k: v for k, v in case["config"].items() if isinstance(v, dict)})
    complete(config)
    check_config(config, case["runner"], test=False)
    program = PROGRAMS[case["runner"]](config, torch.device("cpu"))
    fill(unwrapped(program.network))
    return program


def images_of(batch):
    return torch.tensor(batch).float().div(255)


def update(program, batch, draws):
    """One training step as the loop makes it; the loss."""
    program.network.train()
    images = images_of(batch)
    loss = program.training_loss(program.values(images, draws), draws)
    program.optimizer.zero_grad()
    loss.backward()
    program.optimizer.step()
    return loss.item()


def recorded_steps(name):
    """For each step its batch and its draws, in order."""
    numbers = sorted(int(key.rsplit("batch", 1)[1]) for key in all_keys(name) if "/batch" in key)
    draws = sorted(key.rsplit("/", 1)[1] for key in all_keys(name) if "/draw" in key)
    for first, following in zip(numbers, [*numbers[1:], len(draws)], strict=True):
        yield array(name, f"batch{first:02d}"), [array(name, key) for key in draws[first:following]]


def all_keys(name):
    return {key for key in (*arrays(), *CASES["_same_as"]) if key.startswith(f"{name}/")}
