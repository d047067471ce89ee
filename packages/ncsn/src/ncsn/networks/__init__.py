"""The networks of NCSN: by name, those that runners train and those that the original only held.

``CondRefineNetDilated`` and ``RefineNetDilated`` are shared with NCSNv2 and live in the core.
"""

from ncsn.networks.res_score import ConvResBlock, DeconvResBlock, ResEnergy, ResScore
from ncsn.networks.toy import GMM, Gaussian, Gaussian4SVI, ToyMLP
from score_core.torch.networks.refinenet import CondRefineNetDeeperDilated, CondRefineNetDilated, RefineNetDilated

__all__ = [
    "GMM",
    "CondRefineNetDeeperDilated",
    "CondRefineNetDilated",
    "ConvResBlock",
    "DeconvResBlock",
    "Gaussian",
    "Gaussian4SVI",
    "RefineNetDilated",
    "ResEnergy",
    "ResScore",
    "ToyMLP",
]
