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

Sources: :class:`RecordedNoise` here (tests, paired comparisons), ``PerSampleNoise`` and ``LegacyNoise`` in the wings.
"""

import enum
from typing import Any, NamedTuple, Protocol

__all__ = ["NoiseSource", "RecordedNoise", "Role"]


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


class RecordedNoise(NamedTuple):
    """A noise source that replays arrays.

    Attributes:
        x_T: ``[B, ...]``. correctors: ``[N, n_steps, B, ...]``. predictors: ``[N, B, ...]``.
    """

    x_T: Any
    correctors: Any
    predictors: Any

    def prior(self) -> tuple[Any, Any]:
        return (), self.x_T

    def begin(self, carry: Any, i: Any) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: Any, k: Any) -> tuple[Any, Any]:
        return carry, self.correctors[i, k]

    def predictor(self, carry: Any, i: Any) -> tuple[Any, Any]:
        return carry, self.predictors[i]
