r"""Langevin samplers of the toy experiments: :math:`x \leftarrow x + \tfrac{lr}{2} s(x) + \sqrt{lr}\, z`.

This is Algorithm 1 of the paper as printed. The samplers of images (:mod:`ncsn.sampling`) drop the factor 1/2, so their
step is twice the size for the same number.
"""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from score_core.torch.langevin import Noise, annealed_langevin, annealed_levels, langevin, random_noise

__all__ = ["anneal_langevin_dynamics", "langevin_dynamics"]


def langevin_dynamics(
    score: Callable[[Tensor], Tensor], init: Tensor, lr: float = 0.1, step: int = 1000, *, noise: Noise | None = None
) -> Tensor:
    """The points ``init`` ``[B, d]`` after ``step`` updates with the score ``[B, d] -> [B, d]``.

    ``noise`` None: drawn from PyTorch's default generator.
    """
    return langevin(lambda x, _: score(x), init, lr / 2, step, noise=noise or random_noise())


def anneal_langevin_dynamics(
    score: Callable[[Tensor, float], Tensor],
    init: Tensor,
    sigmas: np.ndarray,
    lr: float = 0.1,
    n_steps_each: int = 100,
    *,
    noise: Noise | None = None,
) -> Tensor:
    """The points ``init`` after ``n_steps_each`` updates at each of the descending ``sigmas`` ``[L]``.

    ``score(x, sigma)`` is that of the distribution at level sigma; the step size there is ``lr (sigma / sigma_L)^2``.
    """
    x = init
    for level in annealed_levels(sigmas, lr / 2):
        x = annealed_langevin(
            lambda x, _, sigma=level.sigma: score(x, sigma), x, [level], n_steps_each, noise=noise or random_noise()
        )
    return x
