"""Names and shapes of the published noise-conditional classifier: a wide ResNet 28-10, 38,913,242 parameters.

Its checkpoint is a Flax parameter tree alone. It has no counterpart in the PyTorch program; this project's networks of
both frameworks read the tree as it is.
"""

__all__ = ["classifier_shapes"]

_GROUPS, _BLOCKS, _WIDTH, _EMBEDDING, _CLASSES = 3, 4, 160, 512, 10


def classifier_shapes() -> dict[str, tuple[int, ...]]:
    """Flat name to shape, normalisations ``[1, 1, 1, C]``."""
    shapes = {"GaussianFourierProjection_0/W": (128,), "init_conv/kernel": (3, 3, 3, 16)}
    width = 16
    for group in range(_GROUPS):
        for block in range(_BLOCKS):
            before, width = width, _WIDTH * 2**group
            name = f"WideResnetGroup_{group}/WideResnetBlock_{block}"
            shapes |= _norm(f"{name}/init_bn", before) | _norm(f"{name}/bn_2", width)
            shapes |= _dense(f"{name}/Dense_0", _EMBEDDING, width)
            shapes[f"{name}/conv1/kernel"] = (3, 3, before, width)
            shapes[f"{name}/conv2/kernel"] = (3, 3, width, width)
    shapes |= _norm("pre-pool-bn", width)
    shapes |= _dense("Dense_0", 256, _EMBEDDING) | _dense("Dense_1", _EMBEDDING, _EMBEDDING)
    return shapes | _dense("Dense_2", width, _CLASSES)


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/{last}": (1, 1, 1, width) for last in ("scale", "bias")}


def _dense(name: str, before: int, after: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": (before, after), f"{name}/bias": (after,)}
