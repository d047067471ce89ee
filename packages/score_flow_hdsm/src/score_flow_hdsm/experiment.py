"""What a configuration of these papers means, beyond :mod:`score_sde.experiment`; for either framework.

data.dataset ImageNet            the older release, at data.image_size
training.smallest_time           where likelihoods and losses begin
sampling.smallest_time           where sampling ends
eval.num_repeats                 passes over the test images
eval.bound, eval.dequantizer     what bits/dim are by, and of which data: told apart in results.json

                                 uniform noise     dequantised by the flow
ODE                              bpd               bpd_dequantizer
variational bound                bpd_bound         bpd_bound_dequantizer
"""

from functools import partial
from pathlib import Path
from typing import Any

import ml_collections

from score_core.data import Source
from score_core.errors import UsageError
from score_sde.data_source import source_of
from score_sde.experiment import Experiment, Framework, require_framework

__all__ = ["ScoreFlow", "experiment_maker"]


class ScoreFlow(Experiment):
    """What both frameworks share; to be mixed with a framework's experiment.

    Attributes:
        workdir: the run's directory, in which the dequantiser is looked for.
        deq_folder: its name there.
    """

    loss_names = ("loss", "loss1", "loss2", "loss3")

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        local: bool = False,
        *,
        workdir: Path | None = None,
        deq_folder: str = "flowpp_dequantizer",
    ) -> None:
        super().__init__(config, local)
        self.workdir = workdir
        self.deq_folder = deq_folder

    @property
    def sampling_eps(self) -> float:
        return self.config.sampling.smallest_time

    @property
    def bpd_metric(self) -> str:  # type: ignore[override]
        settings = self.config.eval
        return "bpd" + "_bound" * bool(settings.bound) + "_dequantizer" * bool(settings.dequantizer)

    def bpd_repeats(self, split: str) -> int:
        return self.config.eval.bpd_repeats or (self.config.eval.num_repeats if split == "test" else 1)

    def source(self, split: str) -> Source:
        data = self.config.data
        if data.dataset.lower() != "imagenet":
            return source_of(self.config, split)
        if data.image_size not in (32, 64):
            raise UsageError(f"data.image_size is {data.image_size}; ImageNet is there at 32 and 64 pixels")
        named = self.config.copy_and_resolve_references()
        named.data.dataset = f"imagenet{data.image_size}_old"
        return source_of(named, split)

    def loss_options(self) -> dict[str, Any]:
        """What ``config.training`` says of the objective, for ``get_loss_parts_fn`` of either framework.

        Raises:
            UsageError: discrete noise levels, which these papers do not have.
        """
        training = self.config.training
        if not training.continuous:
            raise UsageError(
                "training.continuous is False; these papers have continuous times only (score_sde has both)"
            )
        return {
            "order": training.score_matching_order,
            "reduce_mean": training.reduce_mean,
            "likelihood_weighting": training.likelihood_weighting,
            "importance_weighting": training.importance_weighting,
            "eps": training.smallest_time,
        }


def _make(
    config: ml_collections.ConfigDict, framework: Framework = "jax", *, local: bool = False, **options: Any
) -> Experiment:
    require_framework(framework)
    if framework == "jax":
        from score_flow_hdsm.jax_experiment import JaxScoreFlow

        return JaxScoreFlow(config, local, **options)
    from score_flow_hdsm.torch_experiment import TorchScoreFlow

    return TorchScoreFlow(config, local, **options)


def experiment_maker(workdir: Path, deq_folder: str) -> Any:
    """``make_experiment(config, framework, local=False)`` for the programs of score_sde."""
    return partial(_make, workdir=workdir, deq_folder=deq_folder)
