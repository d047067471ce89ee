"""What a toy run is: the original's constants as options, and the name of its folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from score_core.errors import UsageError
from score_flow_hdsm.toy.data import DATA
from score_flow_hdsm.toy.losses import METHODS
from score_flow_hdsm.toy.sdes import SDES, START_TIME

__all__ = ["ToySettings"]


@dataclass(frozen=True)
class ToySettings:
    """A toy run.

    Attributes:
        data, dim: which distribution, in how many dimensions.
        sde, method, reweighted: which SDE, loss and times (VP: by importance unless ``reweighted``).
        score_lambda, third_score_lambda: coefficients of the second and third order.
        n_iters, batch_size: updates and points an update.
        log_freq, viz_freq: updates between lines of the log, and between evaluations and pictures.
        ema_start: the moving average begins after so many updates.
        eval_batch: points of an evaluation.
        grid: points of a density along an axis.
        encoder_layers, pos_dim, decoder_layers: the network.
        seed: of everything.
    """

    data: str = "checkerboard"
    dim: int = 0
    sde: str = "VE"
    method: str = "score_eps"
    reweighted: bool = True
    score_lambda: float = 0.5
    third_score_lambda: float = 0.1
    n_iters: int = 100000
    batch_size: int = 5000
    log_freq: int = 100
    viz_freq: int = 10000
    ema_start: int = 500
    eval_batch: int = 5000
    grid: int = 400
    encoder_layers: tuple[int, ...] = (128, 128)
    pos_dim: int = 64
    decoder_layers: tuple[int, ...] = (512, 512)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("data", self.data, tuple(DATA)),
            ("sde", self.sde, SDES),
            ("method", self.method, METHODS),
        ):
            if value not in known:
                raise UsageError(f"--{name} is {value!r}; it must be one of {', '.join(known)}")
        dims = DATA[self.data].dims
        if self.dim == 0:
            object.__setattr__(self, "dim", dims[0] if dims else 1)
        if self.dim < 1 or (dims and self.dim not in dims):
            raise UsageError(f"--dim is {self.dim}; {self.data} has {dims[0] if dims else 'one or more'}")
        if self.dim > 2 and self.method in ("score_eps_second_jac", "score_eps_third"):
            raise UsageError(f"--method={self.method} is for 1 and 2 dimensions, not for {self.dim}")
        for name in ("n_iters", "batch_size", "log_freq", "viz_freq", "eval_batch", "grid"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def network(self) -> dict[str, Any]:
        return {"encoder_layers": self.encoder_layers, "pos_dim": self.pos_dim, "decoder_layers": self.decoder_layers}

    @property
    def folder(self) -> Path:
        """Where the original puts such a run, below the current folder."""
        method = self.method
        if "second" in method:
            method += f"_{self.score_lambda}"
        if "third" in method:
            method += f"_{self.score_lambda}_{self.third_score_lambda}"
        name = f"{self.data}_{method}_dim{self.dim}_from{START_TIME}_{self.sde}_reweighted_{self.reweighted}"
        return Path("experiments", f"{name}_sigma_0.01_50")

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
