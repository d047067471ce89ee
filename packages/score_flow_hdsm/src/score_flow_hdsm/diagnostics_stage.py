"""``eval_scorenet``: the diagnostics of :mod:`score_flow_hdsm.diagnostics` over a data set, as a stage of evaluation.

workdir/{eval_folder}/{split}_ckpt_{k}_scorenet_{round}.npz   each quantity [times, images], t, index
workdir/eval.npz                                             the original's: means over the images, [times]
workdir/{eval_folder}/scorenet_{k}.png                       the same, drawn
"""

import io
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError
from score_core.jax.noise import per_sample_keys, uniform_per_sample
from score_core.random import Role
from score_flow_hdsm.diagnostics import NAMES, get_diagnostics_fn
from score_flow_hdsm.draws import SampleDraws
from score_sde.evaluation_files import Session, load_npz, save_npz, standard_error
from score_sde.rounds import Batches

__all__ = ["Diagnostics"]

_logger = logging.getLogger(__name__)


class Diagnostics:
    """How far the network is from the score of its own ODE, at every time."""

    def __init__(self, experiment: Any) -> None:
        config = experiment.config
        name = config.eval.bpd_dataset.lower()
        if name not in ("train", "test"):
            raise UsageError(f"eval.bpd_dataset is {name!r}; it must be 'train' or 'test'")
        self.experiment = experiment
        self.batches = Batches(experiment, name, experiment.bpd_repeats(name))
        self.rounds = self.batches.rounds
        self.diagnose = get_diagnostics_fn(
            experiment.sde,
            experiment.apply_fn,
            eps=config.training.smallest_time,
            n_times=config.eval.diagnostic_times,
        )

    def _file(self, session: Session, round_: int) -> Path:
        return session.folder / f"{self.batches.split}_ckpt_{session.number}_scorenet_{round_}.npz"

    def compute(self, session: Session, position: int) -> None:
        """Writes this process's rounds."""
        experiment, keys = self.experiment, self.experiment.keys
        for round_, batch in self.batches.missing(session.worker, lambda r: self._file(session, r), "scorenet"):
            session.stop_if_requested()
            repeat, index = divmod(round_, self.batches.per_repeat)
            key = jax.random.fold_in(keys.base, repeat)
            numbers = experiment.parallel.shard(batch.index.astype(np.int32))
            u = uniform_per_sample(key, numbers, Role.DEQUANTIZATION, experiment.image_shape)
            data = experiment.dequantize(experiment.parallel.shard(batch.image), u)
            probe = SampleDraws().signs(per_sample_keys(key, numbers, Role.PROBE), experiment.image_shape)
            values = self.diagnose(session.params, data, probe)
            kept = {name: values[name][:, batch.valid] for name in NAMES}
            save_npz(self._file(session, round_), t=values["t"], index=batch.index[batch.valid], **kept)
            for i in range(0, len(values["t"]), max(1, len(values["t"]) // 10)):
                line = ", ".join(f"{name}: {kept[name][i].mean():6f}" for name in NAMES)
                _logger.info(
                    "ckpt: %d, repeat: %d/%d, batch: %d/%d, t: %6f, %s",
                    session.number,
                    repeat + 1,
                    self.batches.repeats,
                    index + 1,
                    self.batches.per_repeat,
                    values["t"][i],
                    line,
                )

    def report(self, session: Session, since: float) -> None:
        """Puts all rounds together."""
        files = session.await_rounds(lambda r: _if_there(self._file(session, r)), self.rounds, "scorenet")
        parts = [load_npz(file) for file in files]
        index, t = np.concatenate([part["index"] for part in parts]), parts[0]["t"]
        tables = {name: np.concatenate([part[name] for part in parts], axis=1).astype(np.float64) for name in NAMES}
        means = {name: table.mean(axis=1) for name, table in tables.items()}
        save_npz(session.workdir / "eval.npz", **means)
        _draw(session.folder / f"scorenet_{session.number}.png", t, means)
        for name, table in tables.items():
            # The integral over t, which is what enters the bound on the likelihood.
            of_image = np.asarray(np.trapezoid(table, t, axis=0))
            session.record(
                name,
                of_image.mean(),
                standard_error(of_image, index),
                sample_count=len(np.unique(index)),
                dataset=session.dataset(self.batches.split),
                details={"integrated_over_t": True, "times": len(t), "repeats": self.batches.repeats},
                seconds=time.monotonic() - since,
            )


def _if_there(file: Path) -> Path | None:
    return file if file.exists() else None


def _draw(file: Path, t: np.ndarray, means: dict[str, np.ndarray]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name in ("s_with_odes", "s_with_normals", "ode_with_normals"):
        axes.plot(t, means[name], label=name.replace("_", " "))
    axes.set_yscale("log")
    axes.set_xlabel("t")
    axes.set_ylabel("g(t)^2 E|difference|^2")
    axes.legend(frameon=False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    atomic_write(file, png.getvalue())
