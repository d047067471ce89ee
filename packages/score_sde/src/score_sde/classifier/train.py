"""Training of the classifier, and its accuracy at the end.

    workdir/stdout.txt, tensorboard/, history.csv    log and curves
    workdir/config.json                              the experiment and the classifier's settings
    workdir/checkpoints-meta/checkpoint_{step}       the newest two, for resuming
    workdir/checkpoints/checkpoint_{n_iters}         the averaged parameters, at the end
    workdir/accuracy.png, results.json               accuracy against the noise level

Update ``u`` is a function of the state, the seed and ``u``: a run that was stopped ends with the numbers of one that
was not.
"""

import logging
import os
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.store import read_latest, save_checkpoint
from score_core.data import Pipeline, Prefetcher, Source
from score_core.errors import UsageError, UserError
from score_core.runs.config_record import config_hash
from score_core.runs.history import History
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.results import add_results
from score_core.runs.signals import GracefulStop
from score_core.runs.tensorboard import SummaryWriter
from score_core.runs.workdir import Workdir
from score_core.sdes import get_sde
from score_sde.classifier.accuracy import draw_accuracy, measure_accuracy, results_of
from score_sde.classifier.checkpoints import read_classifier_tree
from score_sde.classifier.settings import Settings
from score_sde.data_source import source_of

__all__ = ["build_classifier", "run"]

_logger = logging.getLogger(__name__)

# What may differ from start to start of one work directory without changing a number.
_FREE_KEYS = (
    "experiment.eval.*",
    "experiment.sampling.*",
    "experiment.optim.*",
    "experiment.data.root",
    "experiment.data.path",
    "experiment.data.download",
    "classifier.log_freq",
    "classifier.snapshot_freq",
)
_LABELLED = "digits, mnist, fashion_mnist, cifar10, svhn, and folders or archives with one folder a class"


def build_classifier(
    config: ml_collections.ConfigDict, network: dict[str, int], framework: str, *, published: bool = False
) -> Any:
    """The classifier for the noise and the images of an experiment.

    Arguments:
        config: the experiment.
        network: ``blocks_per_group``, ``channel_multiplier``, ``num_outputs``, ``num_channels``.
        framework: ``"jax"`` or ``"torch"``.
        published: its parameters are the original's.
    """
    if framework == "jax":
        from score_sde.classifier.jax_wing import Classifier
    else:
        from score_sde.classifier.torch_wing import Classifier
    settings: Any = config
    data, model = settings.data, settings.model
    sde = get_sde(settings.training.sde, N=model.num_scales, **model)
    return Classifier(sde, network, data.image_size, data.centered, published)


def run(
    config: ml_collections.ConfigDict,
    settings: Settings,
    framework: str,
    workdir: str | os.PathLike[str],
    *,
    train: bool = True,
    force: bool = False,
) -> None:
    """Trains until ``settings.n_iters`` from the newest checkpoint, if there is one, and measures the accuracy.

    Arguments:
        config: the experiment whose noise and images the classifier learns.
        settings: network and training.
        framework: ``"jax"`` or ``"torch"``.
        workdir: where everything is written; made if missing.
        train: False: measure what is there.
        force: accept settings that differ from those the work directory was started with.

    Raises:
        UserError: see its message; nothing that was there is lost.
        StopRequested: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    data: Any = config.data
    source = _labelled(config, "train")
    network = {
        "blocks_per_group": settings.blocks_per_group,
        "channel_multiplier": settings.channel_multiplier,
        "num_outputs": source.num_classes or 0,
        "num_channels": source.shape[2],
    }
    if source.shape[0] % 4:
        raise UsageError(f"the classifier halves images twice: {source.shape[0]} pixels are not divisible by 4")
    if not train and not Path(workdir).is_dir():
        raise UsageError(f"no work directory {workdir}: train first (--mode=train), or name another with --workdir")
    record = {"experiment": config.to_dict(), "classifier": asdict(settings) | {"framework": framework}}
    with (
        Workdir(workdir, role="train") as folder,
        RunLog(folder.path / "stdout.txt"),
        GracefulStop() as stop,
    ):
        folder.record_config(record, ignore=_FREE_KEYS, may_grow=("classifier.n_iters",), force=force)
        run_ = _Run(build_classifier(config, network, framework), settings, folder, stop, source, config_hash(record))
        if train:
            run_.train(random_flip=data.random_flip)
        run_.evaluate([source, _labelled(config, "test")])


def _labelled(config: ml_collections.ConfigDict, split: str) -> Source:
    source = source_of(config, split)
    if source.num_classes is None:
        raise UsageError(
            f"the data set {source.name!r} has no labels, which a classifier learns from; with labels: {_LABELLED}. "
            "Choose one with --config.data.dataset"
        )
    return source


class _Run:
    """One start."""

    def __init__(
        self, classifier: Any, settings: Settings, folder: Workdir, stop: GracefulStop, source: Source, digest: str
    ) -> None:
        self.classifier = classifier
        self.settings = settings
        self.folder = folder
        self.stop = stop
        self.source = source
        self.config_hash = digest

    def train(self, *, random_flip: bool) -> None:
        """The loop; afterwards the averaged parameters are in ``checkpoints``."""
        settings = self.settings
        state, first = self._initial_state()
        if first >= settings.n_iters and self._final.exists():
            _logger.info("nothing to train: %s is there", self._final)
            return
        pipeline = Pipeline(
            self.source, settings.batch_size, seed=settings.seed, random_flip=random_flip, drop_remainder=False
        )
        with (
            Prefetcher(pipeline.batch, first) as batches,
            SummaryWriter(self.folder.path / "tensorboard", purge_step=first or None) as summaries,
            Progress(settings.n_iters, initial=first, description="train") as progress,
        ):
            history = History(self.folder.path / "history.csv", resume_at=first)
            for step in range(first, settings.n_iters):
                batch = next(batches)
                state, loss = self.classifier.update(state, batch.image, batch.label)
                values = {}
                if step % settings.log_freq == 0:
                    value = float(loss)
                    self._require_finite(value, step)
                    _logger.info("step: %d, training_loss: %.5e", step, value)
                    summaries.scalar("training_loss", value, step)
                    history.add(step, training_loss=value)
                    values = {"loss": value}
                progress.update(1, **values)
                done = step + 1
                if done % settings.snapshot_freq == 0 or done == settings.n_iters or self.stop.requested:
                    self._require_finite(float(loss), step)
                    self._save(state, done)
                if self.stop.requested:
                    self.stop.exit()
        tree = self.classifier.params_to_tree(state)
        path = save_checkpoint(self._final.parent, msgpack_format.dumps(tree), settings.n_iters)
        _logger.info("saved %s", path)

    @property
    def _final(self) -> Path:
        return self.folder.path / "checkpoints" / f"checkpoint_{self.settings.n_iters}"

    def _initial_state(self) -> tuple[Any, int]:
        settings = self.settings
        adam = {
            "beta1": 0.9,
            "eps": 1e-8,
            "warmup": settings.warmup,
            "grad_clip": settings.grad_clip,
            "weight_decay": 0.0,
        }
        state = self.classifier.init_state(adam, settings.lr, settings.ema_rate, settings.seed)
        found = read_latest(self.folder.path / "checkpoints-meta", decode=msgpack_format.loads)
        if found is None:
            return state, 0
        _logger.info("resuming from %s", found.path)
        return self.classifier.state_from_tree(found.content, state, found.path), found.step

    def _save(self, state: Any, step: int) -> None:
        data = msgpack_format.dumps(self.classifier.state_to_tree(state))
        path = save_checkpoint(self.folder.folder("checkpoints-meta"), data, step, keep=2)
        _logger.info("saved %s", path)

    def _require_finite(self, loss: float, step: int) -> None:
        if not np.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}. No checkpoint follows the last good one; lower --lr and start "
                "again to go on from it"
            )

    def evaluate(self, sources: list[Source]) -> None:
        """Accuracy of the newest parameters on each source: picture, results, log."""
        path, tree = read_classifier_tree(self.folder.path / "checkpoints")
        step = int(path.name.rpartition("_")[2])
        params = self.classifier.params_from_tree(tree, path)
        digest = sha256(path.read_bytes()).hexdigest()
        curves = []
        # Of the training images as many as there are others, which is enough to see whether they are told by heart.
        count = min(len(source) for source in sources)
        for source in sources:
            begin = time.monotonic()
            measured = measure_accuracy(self.classifier, params, source, count, self.settings.seed, self.stop)
            for std, accuracy in zip(measured.std, measured.accuracy, strict=True):
                _logger.info("%s: noise %.4g, accuracy %.4f", source.split, std, accuracy)
            results = results_of(
                measured,
                dataset=f"{source.name}/{source.split}",
                checkpoint_step=step,
                checkpoint_sha256=digest,
                config_hash=self.config_hash,
                seed=self.settings.seed,
                ema=True,
                seconds=time.monotonic() - begin,
            )
            add_results(self.folder.path / "results.json", results)
            curves.append(measured)
        title = f"{sources[0].name}: classifier after {step:,} updates"
        draw_accuracy(self.folder.path / "accuracy.png", curves, title)
