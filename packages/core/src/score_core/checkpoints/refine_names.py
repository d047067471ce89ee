r"""Where the parameters of the Flax RefineNets (NCSN, NCSNv2) are in the state dicts of the PyTorch port.

    residual block    conv1, normalize2, conv2, [shortcut], normalize1 (in the order in which the port registers them)
    refine block      adapt_convs.i (a unit per input), output_convs, [msf], crp
    unit              {block}_{stage}_conv and _norm, from 1;  msf, crp: convs.i, norms.i

    res2.0.conv2.conv.weight             <->  ResidualBlock_2/ConvMeanPool_0/Conv_0/kernel
    refine2.adapt_convs.1.2_1_conv.weight  <->  RefineBlock_1/RCUBlock_1/Conv_2/kernel

Keys are those of the port with its repairs: as shipped it cannot build these networks. The third refine block of the
64-pixel networks has ``nf`` channels in the port and ``2 nf`` in the JAX program; ``flavor`` says whose is meant.
"""

from collections import Counter
from typing import Any

from score_core.checkpoints.torch_leaf import Member, TorchLeaf, TorchName, Transform, linear
from score_core.errors import UsageError

__all__ = ["NETWORKS", "refine_leaves"]

# Per stage: width of its two residual blocks, width of the refine block they feed (in nf), halves, dilation.
_STAGES = {
    64: [(1, 1, False, 1), (2, 1, True, 1), (2, 2, True, 2), (2, 2, True, 4)],
    128: [(1, 1, False, 1), (2, 1, True, 1), (2, 2, True, 1), (4, 2, True, 2), (4, 4, True, 4)],
    256: [(1, 1, False, 1), (2, 1, True, 1), (2, 2, True, 1), (2, 2, True, 1), (4, 2, True, 2), (4, 4, True, 4)],
}
NETWORKS = {"ncsn": 64, "ncsnv2_64": 64, "ncsnv2_128": 128, "ncsnv2_256": 256}
"""``model.name`` to the image size that names its depth."""

# Names of the parameters of a normalisation: (Flax, PyTorch).
_NORMS = {
    "InstanceNorm++": ("InstanceNorm2dPlus", [("alpha", "alpha"), ("gamma", "gamma"), ("beta", "beta")]),
    "InstanceNorm": ("InstanceNorm2d", [("scale", "weight"), ("bias", "bias")]),
    "VarianceNorm": ("VarianceNorm2d", [("scale", "alpha")]),
    "GroupNorm": ("GroupNorm", [("scale", "weight"), ("bias", "bias")]),
}


def refine_leaves(config: Any, flavor: str) -> list[TorchLeaf]:
    """Every parameter of the PyTorch network of ``config``, in the order of its state dict.

    Arguments:
        config: with a ``model.name`` of :data:`NETWORKS`.
        flavor: "pytorch" or "jax".

    Raises:
        UsageError: ``model.normalization`` is none that the networks know.
    """
    return _RefineNet(config, flavor).leaves


class _RefineNet:
    def __init__(self, config: Any, flavor: str) -> None:
        model = config.model
        self.nf, self.channels = model.nf, config.data.num_channels
        self.conditional = model.name.lower() == "ncsn"
        # The official files lack the key.
        self.classes = model.get("num_classes", model.num_scales) if self.conditional else 0
        if not self.conditional and model.normalization not in _NORMS:
            raise UsageError(f"unknown model.normalization {model.normalization!r}; known: {', '.join(_NORMS)}")
        self.normalization = model.normalization
        if flavor == "pytorch" and self.normalization == "InstanceNorm" and not self.conditional:
            self.bare_norm = True  # parity: without parameters there
        else:
            self.bare_norm = False
        depth = NETWORKS[model.name.lower()]
        self.stages = list(_STAGES[depth])
        if depth == 64 and flavor == "jax":
            self.stages[1] = (2, 2, True, 1)
        self.prefix = "Cond" if self.conditional else ""
        self.leaves: list[TorchLeaf] = []
        self._call()

    def _call(self) -> None:
        nf = self.nf
        self._add("Conv_0", "begin_conv", linear((3, 3, self.channels, nf)))
        self._norm("", Counter[str](), "normalizer", self.stages[0][1] * nf)
        self._add("Conv_1", "end_conv", linear((3, 3, nf, self.channels)))
        down = [str(i + 1) for i in range(len(self.stages))]
        up = list(down)
        if len(down) == 6:  # the network for 256 pixels has a stage more, named after its neighbour
            down, up = ["1", "2", "3", "31", "4", "5"], ["1", "2", "31", "3", "4", "5"]
        h, number = nf, 0
        for label, (width, _, halves, dilation) in zip(down, self.stages, strict=True):
            for i, first in enumerate((halves, False)):
                name = f"{'ConditionalResidualBlock' if self.conditional else 'ResidualBlock'}_{number}"
                self._residual(name, f"res{label}.{i}", h, width * nf, first, dilation)
                h, number = width * nf, number + 1
        for number, label in enumerate(up):
            width, refined, *_ = self.stages[-1 - number]
            inputs = [width * nf] if number == 0 else [width * nf, h]
            h = refined * nf
            last = number == len(up) - 1
            self._refine(f"{self.prefix}RefineBlock_{number}", f"refine{label}", inputs, h, 3 if last else 1)

    def _residual(self, name: str, key: str, before: int, after: int, down: bool, dilation: int) -> None:
        middle = before if down else after
        pooled = down and dilation == 1
        convs = iter(range(3))
        # Flax numbers a shortcut before the convolutions unless the block goes down.
        short = f"Conv_{next(convs)}" if not down and before != after else ""
        first, second = f"Conv_{next(convs)}", f"Conv_{next(convs)}"
        norms = Counter[str]()
        self._add(f"{name}/{first}", f"{key}.conv1", linear((3, 3, before, middle)))
        self._norm(name, norms, f"{key}.normalize2", middle, number=1)
        if pooled:
            self._add(f"{name}/ConvMeanPool_0/Conv_0", f"{key}.conv2.conv", linear((3, 3, middle, after)))
            self._add(f"{name}/ConvMeanPool_1/Conv_0", f"{key}.shortcut.conv", linear((1, 1, before, after)))
        else:
            self._add(f"{name}/{second}", f"{key}.conv2", linear((3, 3, middle, after)))
            if down:
                short = f"Conv_{next(convs)}"
            if short:
                size = 3 if down or dilation > 1 else 1
                self._add(f"{name}/{short}", f"{key}.shortcut", linear((size, size, before, after)))
        self._norm(name, norms, f"{key}.normalize1", before, number=0)

    def _refine(self, name: str, key: str, inputs: list[int], features: int, blocks: int) -> None:
        for i, width in enumerate(inputs):
            self._unit(f"{name}/{self.prefix}RCUBlock_{i}", f"{key}.adapt_convs.{i}", width, 2)
        self._unit(f"{name}/{self.prefix}RCUBlock_{len(inputs)}", f"{key}.output_convs", features, blocks)
        if len(inputs) > 1:
            fuse = f"{name}/{self.prefix}MSFBlock_0"
            for i, width in enumerate(inputs):
                self._add(f"{fuse}/Conv_{i}", f"{key}.msf.convs.{i}", linear((3, 3, width, features)))
            self._refine_norms(fuse, f"{key}.msf", inputs)
        pool = f"{name}/{self.prefix}CRPBlock_0"
        for i in range(2):
            self._unbiased(f"{pool}/Conv_{i}", f"{key}.crp.convs.{i}", features)
        self._refine_norms(pool, f"{key}.crp", [features, features])

    def _unit(self, name: str, key: str, width: int, blocks: int) -> None:
        norms = Counter[str]()
        for i in range(2 * blocks):
            stem = f"{key}.{i // 2 + 1}_{i % 2 + 1}"
            if self.conditional:
                self._norm(name, norms, f"{stem}_norm", width)
            self._unbiased(f"{name}/Conv_{i}", f"{stem}_conv", width)

    def _refine_norms(self, name: str, key: str, widths: list[int]) -> None:
        norms = Counter[str]()
        for i, width in enumerate(widths if self.conditional else []):
            self._norm(name, norms, f"{key}.norms.{i}", width)

    def _norm(self, name: str, norms: Counter[str], key: str, width: int, number: int | None = None) -> None:
        kind, pairs = _NORMS[self.normalization] if not self.conditional else ("ConditionalInstanceNorm2dPlus", [])
        number = norms[kind] if number is None else number
        norms[kind] += 1
        path = f"{name}/{kind}_{number}" if name else f"{kind}_{number}"
        if self.conditional:
            table = Member("embedding", "weight", Transform.SAME, (self.classes, 3 * width))
            self._add(f"{path}/Embed_0", f"{key}.embed", [table])
        elif not self.bare_norm:
            shape = (1, 1, 1, width)
            self._add(path, key, [Member(flax, torch, Transform.FLATTEN, shape) for flax, torch in pairs])

    def _unbiased(self, path: str, key: str, width: int) -> None:
        self._add(path, key, linear((3, 3, width, width))[:1])

    def _add(self, path: str, key: str, members: list[Member]) -> None:
        for member in members:
            name = TorchName(f"{path}/{member.path}", f"{key}.{member.key}", member.transform)
            shape = member.transform.torch_shape(member.shape)
            self.leaves.append(TorchLeaf(name.torch_key, shape, name, member.shape))
