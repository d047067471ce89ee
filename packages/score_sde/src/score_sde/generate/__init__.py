"""Pictures on demand from a trained model: ``python -m score_sde --mode=generate --task=...``.

    sample        images of the model
    inpaint       images whose hidden part is filled in, given the rest
    colorize      colours for grey images
    class         images of given classes, led by a classifier (:mod:`score_sde.classifier`)
    encode        latent codes of images by the probability flow, and what they decode to
    interpolate   images between pairs of images: arcs between their codes, decoded

Every task writes a picture (``<task>.png``) and its arrays (``<task>.npz``). Image ``i`` of a seed is the same in any
batch and in either framework.
"""
