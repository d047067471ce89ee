"""What a configuration means: its data and its SDE, and what training and evaluation ask of either framework.

The programs (:mod:`score_sde.train`, :mod:`score_sde.evaluate`, :mod:`score_sde.generate`) know images as NumPy arrays,
``[B, H, W, C]``; states, parameters and keys they only hand back. :class:`score_sde.jax_experiment.JaxExperiment` and
:class:`score_sde.torch_experiment.TorchExperiment` do the rest. They draw the same random numbers.

                            jax                               torch
    checkpoints/            checkpoint_{k} (msgpack)          checkpoint_{k}.pth
    samples/                iter_{step}_host_0                iter_{step}
    {eval_folder}/          ckpt_{k}_host_{h}                 ckpt_{k}

These are the names of the two original programs. Either framework evaluates the other's checkpoints as well.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

import ml_collections
import numpy as np

from score_core.checkpoints.convert import detect_format, read_state
from score_core.checkpoints.store import read_checkpoint
from score_core.data import Pipeline, Source, dequantize, get_data_inverse_scaler, get_data_scaler, to_float
from score_core.errors import UsageError
from score_core.likelihood import LikelihoodResult
from score_core.runs.config_record import plain_config
from score_core.sdes import SDE
from score_sde.data_source import source_of

__all__ = [
    "FRAMEWORKS",
    "SAME_IN_BOTH",
    "Experiment",
    "Framework",
    "get_experiment",
    "optimizer_settings",
    "record_of",
    "require_framework",
    "usage_errors",
]

Framework = Literal["jax", "torch"]
FRAMEWORKS: tuple[Framework, ...] = ("jax", "torch")
_LIBRARIES = {"jax": ("jax", "flax", "optax"), "torch": ("torch",)}
_SUFFIXES: dict[Framework, str] = {"jax": "", "torch": ".pth"}

_SOLVERS = {"rk45": "device", "scipy": "scipy"}
SAME_IN_BOTH = ("ncsnpp", "ddpm")
"""The networks that compute the same in both original programs."""


class Experiment(ABC):
    """A configuration with everything that is built from it.

    Attributes:
        config: complete and locked (see :mod:`score_sde.configs.load`).
        local: use the devices of this process alone, whatever other processes there are.
        framework: which one it is.
        file_format: of its checkpoints, a name in :data:`score_core.checkpoints.convert.FORMATS`.
        real: of losses and scores in the files of an evaluation, as in the original program.
    """

    framework: ClassVar[Framework]
    file_format: ClassVar[str]
    loss_names: ClassVar[tuple[str, ...]] = ("loss",)
    """What the columns of :meth:`train_call`'s and :meth:`eval_call`'s losses are called in logs; the first is the
    loss."""
    bpd_metric: str = "bpd"
    """What :meth:`bits_per_dim` is called in ``results.json``."""
    real: ClassVar[type[np.floating]]

    def __init__(self, config: ml_collections.ConfigDict, local: bool = False) -> None:
        self.config: Any = config
        self.local = local

    # -- data and SDE --------------------------------------------------------------------------------------------------

    @cached_property
    def sde(self) -> SDE:
        model = self.config.model
        with usage_errors():
            return self.make_sde(self.config.training.sde, N=model.num_scales, **model)

    @staticmethod
    @abstractmethod
    def make_sde(name: str, /, *, N: int, **options: Any) -> SDE:
        """As :func:`score_core.sdes.get_sde`."""

    @property
    def sampling_eps(self) -> float:
        """The time at which sampling ends: 1e-3 for VP and sub-VP, 1e-5 for VE."""
        return self.sde.sampling_eps

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        data = self.config.data
        return data.image_size, data.image_size, data.num_channels

    @property
    def inverse_scaler(self) -> Callable[[Any], Any]:
        return get_data_inverse_scaler(self.config.data.centered)

    def scale(self, images: Any) -> Any:
        """uint8 images in the network's range."""
        return get_data_scaler(self.config.data.centered)(to_float(images))

    def dequantize(self, images: Any, u: Any) -> Any:
        """uint8 images with uniform dequantisation noise ``u`` of ``U[0, 1)``, in the network's range."""
        return get_data_scaler(self.config.data.centered)(dequantize(to_float(images), u))

    def source(self, split: str) -> Source:
        """``train`` or ``test`` images."""
        return source_of(self.config, split)

    def pipeline(
        self, split: str, batch_size: int, *, seed: int, flip: bool = False, drop_remainder: bool = False
    ) -> Pipeline:
        """This process's share of the batches of a split; training batches run on from epoch to epoch by default."""
        return Pipeline(
            self.source(split),
            batch_size,
            seed=seed,
            random_flip=flip,
            process_index=self.parallel.process_index,
            process_count=self.parallel.process_count,
            drop_remainder=drop_remainder,
        )

    # -- files ---------------------------------------------------------------------------------------------------------

    @property
    def suffix(self) -> str:
        """What its checkpoints' names end with."""
        return _SUFFIXES[self.framework]

    @property
    def suffixes(self) -> dict[Framework, str]:
        """What either framework's checkpoints' names end with, its own first."""
        first: dict[Framework, str] = {self.framework: self.suffix}
        return first | _SUFFIXES

    @abstractmethod
    def sample_folder(self, step: int) -> str:
        """The folder of the samples that training draws after ``step``."""

    @abstractmethod
    def round_folder(self, number: int, host: int | str) -> str:
        """The folder in which process ``host`` of an evaluation puts its samples of checkpoint ``number``."""

    def load_state(self, path: Path) -> Any:
        """Reads, verifies and decodes a checkpoint file of either program.

        Raises:
            CheckpointError: it is damaged, or belongs to another network.
            UsageError: it comes from the other program, whose network of that name computes other numbers.
        """
        data = read_checkpoint(path)
        if self._is_own(data):
            return self.decode_state(data, where=path)
        name, tree, _ = read_state(path, self.config)
        model = self.config.model
        if model.name not in SAME_IN_BOTH and not model.flavor:
            other = "pytorch" if name == "pth" else "jax"
            raise UsageError(
                f"{path} is a {name} file, and the two original programs differ in {model.name}: say which numbers are "
                f"meant by --config.model.flavor={other}"
            )
        return self.state_from_flax(tree, where=path)

    def _is_own(self, data: bytes) -> bool:
        try:
            return detect_format(data) == self.file_format
        except UsageError:
            return True  # to be refused by the reader of our own format, which says why

    @abstractmethod
    def check_file(self, data: bytes) -> Any:
        """The contents of an own checkpoint file, whatever network they belong to; CheckpointError if damaged."""

    @abstractmethod
    def encode_state(self, state: Any) -> bytes:
        """The state as a checkpoint file of the original's layout."""

    @abstractmethod
    def decode_state(self, data: bytes, *, where: Any) -> Any:
        """The state in a checkpoint file, names and shapes compared with this experiment's network.

        Raises:
            CheckpointError: the file is damaged, or belongs to another network.
        """

    @abstractmethod
    def state_from_flax(self, tree: dict[str, Any], *, where: Any) -> Any:
        """The state in a tree of the JAX program's layout."""

    # -- training ------------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def parallel(self) -> Any:
        """The devices and processes (:class:`score_core.jax.parallel.Parallel`, ``score_core.torch.parallel``)."""

    @abstractmethod
    def initial_state(self) -> Any:
        """A fresh state on the devices, deterministic in the seed; its ``step`` is 0."""

    @abstractmethod
    def place(self, state: Any) -> Any:
        """A state that was read, on the devices."""

    @abstractmethod
    def to_device(self, images: np.ndarray) -> Any:
        """This process's part of ``n`` batches, uint8 ``[n, B, H, W, C]``, for the two calls below."""

    @abstractmethod
    def train_call(self, state: Any, batches: Any) -> tuple[Any, Any]:
        """``n`` updates: the new state and the losses ``[n]``, on the device. The old state is used up."""

    @abstractmethod
    def eval_call(self, state: Any, batches: Any) -> tuple[Any, Any]:
        """The averaged parameters' losses on ``n`` batches, and the state with its key advanced."""

    @abstractmethod
    def draw_snapshot(self, state: Any) -> tuple[Any, np.ndarray]:
        """``training.batch_size`` samples ``[B, H, W, C]`` in [0, 1], and the state with its key advanced."""

    @abstractmethod
    def check_sum(self, state: Any) -> float:
        """0, or not finite if a parameter is not."""

    @abstractmethod
    def check_sampler(self) -> None:
        """Raises UsageError if ``config.sampling`` means no sampler."""

    @abstractmethod
    def check_training(self) -> None:
        """Raises UsageError for options of training that this framework does not have."""

    # -- evaluation ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def parameters(self, state: Any, *, ema: bool) -> Any:
        """The averaged or the raw parameters of a state, on the devices."""

    @abstractmethod
    def losses(self, params: Any, position: int, images: np.ndarray) -> np.ndarray:
        """The training loss of every image ``[B]``, without dropout.

        Arguments:
            position: the place of this batch in the evaluation's chain of keys.
            images: uint8 ``[B, H, W, C]``.
        """

    @abstractmethod
    def bits_per_dim(
        self, params: Any, position: int, images: np.ndarray, indices: np.ndarray, repeat: int
    ) -> LikelihoodResult:
        """Bits/dim of uniformly dequantised images, as NumPy arrays.

        Arguments:
            indices: the images' numbers in the data set; with ``repeat`` they say which random numbers are theirs.
        """

    @abstractmethod
    def draw(self, params: Any, position: int, round_: int) -> tuple[np.ndarray, int]:
        """Round ``round_`` of ``eval.batch_size`` samples ``[B, H, W, C]`` in [0, 1], and the function evaluations."""

    @abstractmethod
    def draw_trajectory(self, params: Any, chains: int, frames: int) -> np.ndarray:
        """The first ``chains`` samples on their way, ``[frames, chains, H, W, C]``; predictor-corrector only."""

    def bpd_repeats(self, split: str) -> int:
        """How often the bits/dim of every image of a split are computed, each time with other noise."""
        # parity: five passes over the test images, one over the training images
        return self.config.eval.bpd_repeats or (5 if split == "test" else 1)

    def pc_options(self) -> dict[str, Any]:
        """What ``config.sampling`` says of the predictor-corrector loop, for ``get_pc_sampler`` of either wing."""
        sampling = self.config.sampling
        return {
            "snr": sampling.snr,
            "n_steps": sampling.n_steps_each,
            "probability_flow": sampling.probability_flow,
            "continuous": self.config.training.continuous,
            "denoise": sampling.noise_removal,
            "eps": self.sampling_eps,
            "inverse_scaler": self.inverse_scaler,
            "corrector_norm": sampling.corrector_norm,
        }

    def few_step_options(self) -> dict[str, Any]:
        """Those of few-step rules."""
        sampling = self.config.sampling
        return {"steps": sampling.steps, "spacing": sampling.spacing, "eta": sampling.eta}

    def objective_options(self) -> dict[str, Any]:
        """What ``config.training`` says of the objective, for ``get_loss_fn`` of either wing."""
        names = ("continuous", "reduce_mean", "likelihood_weighting")
        return {name: self.config.training[name] for name in names}

    @property
    def likelihood_solver(self) -> str:
        """``eval.likelihood_solver`` as ``get_likelihood_fn`` of either wing calls it."""
        name: str = self.config.eval.likelihood_solver
        return _SOLVERS.get(name, name)

    @property
    def sampling_method(self) -> str:
        """``pc`` or ``ode``.

        Raises:
            UsageError: it is neither.
        """
        method = self.config.sampling.method.lower()
        if method not in ("pc", "ode"):
            raise UsageError(f"sampling.method is {self.config.sampling.method!r}; it must be 'pc' or 'ode'")
        return method


def get_experiment(
    config: ml_collections.ConfigDict, framework: Framework = "jax", *, local: bool = False
) -> Experiment:
    """The experiment of a configuration in a framework, which is imported here.

    Raises:
        UsageError: an unknown framework, or one that is not installed.
    """
    require_framework(framework)
    if framework == "jax":
        from score_sde.jax_experiment import JaxExperiment

        return JaxExperiment(config, local)
    from score_sde.torch_experiment import TorchExperiment

    return TorchExperiment(config, local)


def require_framework(framework: str) -> None:
    """Imports a framework.

    Raises:
        UsageError: it is unknown or not installed.
    """
    if framework not in FRAMEWORKS:
        raise UsageError(f"the framework is {framework!r}; it must be one of {', '.join(FRAMEWORKS)}")
    for name in _LIBRARIES[framework]:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"--framework={framework} needs {error.name}, which is not installed: uv sync --all-packages brings "
                f"everything, pip install 'score-core[{framework}]' what is missing"
            ) from error


def record_of(config: ml_collections.ConfigDict, framework: Framework) -> dict[str, Any]:
    """What a work directory records of its configuration, so that the other framework does not go on in it."""
    plain = plain_config(config)
    # Without an entry it is JAX, which the first version of the record did not say.
    return plain if framework == "jax" else plain | {"framework": framework}


def optimizer_settings(config: Any) -> dict[str, Any]:
    """The hyper-parameters of Adam, for ``Adam`` of either wing.

    Raises:
        NotImplementedError: another optimiser.
    """
    optim = config.optim
    if optim.optimizer != "Adam":
        raise NotImplementedError(f"optim.optimizer is {optim.optimizer!r}; only 'Adam' is known")
    return {name: optim[name] for name in ("beta1", "eps", "warmup", "grad_clip", "weight_decay")}


@contextmanager
def usage_errors() -> Iterator[None]:
    """A ValueError or NotImplementedError about a configuration value is the user's to mend: no traceback."""
    try:
        yield
    except (ValueError, NotImplementedError) as error:
        raise UsageError(str(error)) from error
