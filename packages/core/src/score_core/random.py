"""Where every random array of a sampler comes from.

A rule (predictor, corrector) never draws: it is given its noise. The loop that owns the rules asks a noise source for
each array in turn and passes the source's ``carry`` along, so that a source may be a stateless counter, a chain of
split keys or a recording, and the whole loop stays a pure function:

    carry, z = source.prior()                        x_T = prior_scale * z
    for i in 0 .. N-1:
        carry = source.begin(carry, i)
        for k in 0 .. n_steps-1:
            carry, z = source.corrector(carry, i, k)
        carry, z = source.predictor(carry, i)

A sampler that imposes a measurement (:mod:`score_core.controllable`) also asks for the noise of the known part, at the
start and after each of the two rules: ``carry, z = source.measurement(carry, j)``.

Sources: :class:`RecordedNoise` here (tests, paired comparisons), ``PerSampleNoise`` and ``LegacyNoise`` in the wings.
"""

import enum
from typing import Any, NamedTuple, Protocol

__all__ = ["MeasurementNoise", "NoiseSource", "RecordedNoise", "Role"]


class Role(enum.IntEnum):
    """What an array is for. Per-sample streams put it into their counter, so that no two uses share numbers.

    The values are part of the meaning of a seed: never renumber.
    """

    PRIOR = 0
    CORRECTOR = 1
    PREDICTOR = 2
    DEQUANTIZATION = 3
    PROBE = 4
    MEASUREMENT = 5


class NoiseSource(Protocol):
    """Standard normal arrays of one fixed shape ``[B, ...]`` for one run of a sampler."""

    def prior(self) -> tuple[Any, Any]:
        """The first carry and the array that becomes the sample of the prior."""
        ...

    def begin(self, carry: Any, i: Any) -> Any:
        """The carry with which step ``i`` starts its corrector iterations."""
        ...

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, Any]:
        """The next carry and the noise of corrector iteration ``k`` of step ``i``."""
        ...

    def predictor(self, carry: Any, i: Any) -> tuple[Any, Any]:
        """The next carry and the noise of the predictor at step ``i``."""
        ...


class MeasurementNoise(NoiseSource, Protocol):
    """A noise source that also draws the noise of the known part of a sample."""

    def measurement(self, carry: Any, j: Any) -> tuple[Any, Any]:
        """The next carry and the noise with which the measurement is imposed for the ``j``-th time.

        0 at the start, 2 i + 1 after the corrector and 2 i + 2 after the predictor of step ``i``.
        """
        ...


class RecordedNoise(NamedTuple):
    """A noise source that replays arrays.

    Attributes:
        x_T: ``[B, ...]``. correctors: ``[N, n_steps, B, ...]``. predictors: ``[N, B, ...]``.
        measurements: ``[2 N + 1, B, ...]``, for samplers that impose a measurement.
    """

    x_T: Any
    correctors: Any
    predictors: Any
    measurements: Any = None

    def prior(self) -> tuple[Any, Any]:
        return (), self.x_T

    def begin(self, carry: Any, i: Any) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, Any]:
        return carry, self.correctors[i, k]

    def predictor(self, carry: Any, i: Any) -> tuple[Any, Any]:
        return carry, self.predictors[i]

    def measurement(self, carry: Any, j: Any) -> tuple[Any, Any]:
        return carry, self.measurements[j]
