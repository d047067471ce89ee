"""The RefineNets of NCSN and NCSNv2 with the parameter names, order and first draws of their original checkpoints.

    rules       what the blocks and the networks compute, whatever their parameters are called
    blocks      the blocks, named as in the checkpoints of NCSN and NCSNv2
    norms       normalisations, with and without labels
    networks    NCSN, NCSNdeeper, RefineNetDilated, NCSNv2, NCSNv2Deeper, NCSNv2Deepest

The same networks under the names of score_sde's Flax tree are in ``score_core.torch.networks.{ncsn, ncsnv2}``.
"""

from score_core.torch.networks.refinenet.networks import (
    NCSN,
    CondRefineNetDeeperDilated,
    CondRefineNetDilated,
    NCSNdeeper,
    NCSNv2,
    NCSNv2Deeper,
    NCSNv2Deepest,
    RefineNetDilated,
)

__all__ = [
    "NCSN",
    "CondRefineNetDeeperDilated",
    "CondRefineNetDilated",
    "NCSNdeeper",
    "NCSNv2",
    "NCSNv2Deeper",
    "NCSNv2Deepest",
    "RefineNetDilated",
]
