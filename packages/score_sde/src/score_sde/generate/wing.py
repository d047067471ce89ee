"""What the samplers of both frameworks are made of."""

from typing import Any

from score_core.correctors import get_corrector
from score_core.predictors import get_predictor
from score_sde.experiment import usage_errors

__all__ = ["Wing"]


class Wing:
    """The samplers of an experiment, over NumPy images ``[B, H, W, C]``.

    Arguments:
        experiment: the configuration.
        params: the network's parameters (:meth:`score_sde.experiment.Experiment.parameters`).
        noise_consistent: see :class:`score_core.controllable.Replacement`.
    """

    def __init__(self, experiment: Any, params: Any, noise_consistent: bool) -> None:
        self.experiment = experiment
        self.params = params
        self.noise_consistent = noise_consistent

    def build(self, builder: Any, *head: Any, **options: Any) -> Any:
        """A predictor-corrector sampler as ``config.sampling`` describes it.

        Arguments:
            builder: such as ``get_pc_inpainter``.
            head: what it takes after the network. options: what it takes by name.

        Raises:
            UsageError: the configuration means none.
        """
        experiment, sampling = self.experiment, self.experiment.config.sampling
        with usage_errors():
            rules = get_predictor(sampling.predictor), get_corrector(sampling.corrector)
            return builder(experiment.sde, experiment.apply_fn, *head, *rules, **experiment.pc_options(), **options)

    def build_replacing(self, builder: Any) -> Any:
        """One that puts in what is known."""
        return self.build(builder, noise_consistent=self.noise_consistent)

    def build_conditional(self, builder: Any, classifier: Any, guidance: float) -> Any:
        """One that a classifier leads, its gradient taken ``guidance`` times."""

        def gradient(*arguments: Any) -> Any:
            return guidance * classifier.gradient(*arguments)

        return self.build(builder, gradient, **self.experiment.few_step_options())

    def build_encoder(self, builder: Any) -> Any:
        """The map from images to codes."""
        return builder(self.experiment.sde, self.experiment.apply_fn, eps=self.experiment.sampling_eps)

    def build_decoder(self, builder: Any) -> Any:
        """The map from codes to images."""
        experiment = self.experiment
        eps, inverse_scaler = experiment.sampling_eps, experiment.inverse_scaler
        return builder(experiment.sde, experiment.apply_fn, eps=eps, inverse_scaler=inverse_scaler)
