"""How long a run will take here: a few evaluations of the very network are timed, and the rest is arithmetic.

The network of the row's configuration is built in PyTorch with fresh parameters. An evaluation of two images is timed
(after one that does not count), and one with gradients, which is what an update is made of. Sampling and likelihood are
``nfe`` evaluations an image, training is updates times batch. The extractor, reading and writing are left out.
"""

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from score_core.errors import UserError
from score_core.repro.formatting import duration
from score_core.repro.recipes import RecipeUse
from score_core.repro.resolve import yield_of
from score_core.repro.schema import Published

BATCH = 2


def estimate(row: Published, use: RecipeUse, *, train: bool) -> list[str]:
    """Lines that say how long a run takes on this machine, and how that is known.

    Arguments:
        row, use: a published row and its recipe.
        train: whether it trains first.
    """
    recorded = [
        f"recorded ({use.recipe.cost.source}): training {use.recipe.cost.train or 'none'}; "
        f"evaluation {use.recipe.cost.evaluate or 'not known'}"
    ]
    if use.recipe.network is None:
        return ["not probed: the recipe names no network to time", *recorded]
    if find_spec("torch") is None:
        return ["not probed: PyTorch is not installed", *recorded]
    try:
        forward, update = measure(use.command(use.recipe.network))
    except UserError as error:
        return [f"not probed: {error}", *recorded]
    made = yield_of(row, use)
    where = device()
    lines = [
        f"measured on {where}, {BATCH} images at once: {forward:.3g} s an image for an evaluation of the network, "
        f"{update:.3g} s for an update"
    ]
    if made.nfe and made.count:
        seconds = made.nfe * made.count * forward
        work = f"{made.count:,} images of {made.nfe:,} evaluations, without the extractor"
        lines.append(f"evaluation: {duration(seconds)} ({work})")
    if train and "updates" in use.places:
        updates, batch = int(use.places["updates"]), int(use.places["batch"])
        lines.append(f"training: {duration(updates * batch * update)} ({updates:,} updates of {batch} images)")
    return [*lines, *recorded]


def device() -> str:
    """Where PyTorch computes on this machine."""
    torch: Any = import_module("torch")
    return "cuda" if torch.cuda.is_available() else "cpu"


def measure(config_name: str) -> tuple[float, float]:
    """Seconds an image takes in an evaluation, and in an update (an evaluation with gradients).

    Raises:
        UsageError: there is no such configuration.
    """
    from score_core.checkpoints.providers import load_config

    torch: Any = import_module("torch")
    networks: Any = import_module("score_core.torch.networks")
    config = load_config(config_name)
    torch.manual_seed(0)
    where = device()
    model = networks.create_model(config, "pytorch").eval().to(where)
    size, channels = config.data.image_size, config.data.num_channels
    x = torch.rand(BATCH, channels, size, size, device=where)
    fourier = config.model.get("embedding_type", "") == "fourier"
    labels = torch.full((BATCH,), 0.5) if fourier else torch.ones(BATCH, dtype=torch.long)
    labels = labels.to(where)

    def evaluate() -> None:
        with torch.inference_mode():
            float(model(x, labels).sum())  # waits for the device

    def update() -> None:
        loss = model(x, labels).square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device

    return _seconds(evaluate) / BATCH, _seconds(update) / BATCH


def _seconds(call: Callable[[], None]) -> float:
    call()
    begin = time.monotonic()
    call()
    return time.monotonic() - begin
