r"""Score-matching losses of NCSN (arXiv:1907.05600) and of sliced score matching (arXiv:1905.07088), as functions.

A score function gives :math:`s(x) = \nabla \log p(x)`; an energy function gives :math:`E(x)`, of which
:math:`s = -\nabla E` is taken by automatic differentiation.

    function                              what it estimates                                  used by
    anneal_dsm_score_estimation           denoising, over noise levels (eqs. 5, 6)           AnnealRunner
    anneal_sliced_score_estimation_vr     sliced, over noise levels (appendix B.4)           AnnealRunner
    dsm_score_estimation                  denoising, one noise level                         Baseline, ScoreNet
    sliced_score_estimation_vr            sliced, of a score, variance reduced               ScoreNet, Toy
    sliced_score_estimation               sliced, of a score
    sliced_score_matching, ..._vr         the same two of an energy
    single_, partial_sliced_score_matching  one projection, of an energy, three kinds of projections
    dsm                                   denoising, of an energy
    exact_score_matching                  the trace itself, d backward passes; for small d
    fisher_divergence                     what all of them estimate up to a constant, where the true score is known

Every function takes the random numbers it needs as an argument (``noise``, ``vectors``) and draws them from PyTorch's
default generator if they are not given. Values are in the data's own unit, sums over dimensions, means over the batch,
unless a function says otherwise.
"""

from ncsn.losses.denoising import anneal_dsm_score_estimation, dsm, dsm_score_estimation
from ncsn.losses.exact import exact_score_matching, fisher_divergence
from ncsn.losses.sliced import (
    anneal_sliced_score_estimation_vr,
    partial_sliced_score_matching,
    single_sliced_score_matching,
    sliced_score_estimation,
    sliced_score_estimation_vr,
    sliced_score_matching,
    sliced_score_matching_vr,
)

__all__ = [
    "anneal_dsm_score_estimation",
    "anneal_sliced_score_estimation_vr",
    "dsm",
    "dsm_score_estimation",
    "exact_score_matching",
    "fisher_divergence",
    "partial_sliced_score_matching",
    "single_sliced_score_matching",
    "sliced_score_estimation",
    "sliced_score_estimation_vr",
    "sliced_score_matching",
    "sliced_score_matching_vr",
]
