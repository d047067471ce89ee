"""The noise-conditional classifier that leads class-conditional sampling (Song et al. 2021, appendix I.1).

``python -m score_sde.classifier`` trains a wide ResNet on images with the noise of an experiment's SDE, in JAX or in
PyTorch, and measures its accuracy at every noise level. Both write the same files, so that a classifier trained in one
framework leads the sampler of the other; parameters are in the original's format.
"""
