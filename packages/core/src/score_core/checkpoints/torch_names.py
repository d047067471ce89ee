r"""Where the parameters of the Flax networks are in the state dicts of the original PyTorch port (NCSN++ and DDPM;
those of NCSN and NCSNv2 are in `refine_names`).

The port keeps its modules in one list in the order in which the network calls them: module ``n`` is ``all_modules.n``.
Flax calls a module after its class and a running number of its own for each class, in the same order:

    all_modules.4.Conv_0.weight  <->  ResnetBlockBigGANpp_0/Conv_0/kernel

Resamplers without parameters of the image pyramids take a running number in Flax, but no place in the list. What is in
the list only: ``sigmas``, and the Dense layers of residual blocks that an unconditional network never calls.

    leaf                  Flax                           PyTorch                        transform
    convolution, FIR      kernel, weight [k, k, i, o]    weight [o, i, k, k]            CONV
    Dense                 kernel [i, o]                  weight [o, i]                  DENSE
    GroupNorm             scale, bias [1, 1, 1, C]       weight, bias [C]               FLATTEN
    NIN, Fourier, biases  W [i, o], b, W, bias           the same                       SAME

A configuration is anything with the attributes ``model`` and ``data`` of the original's.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from score_core.checkpoints.refine_names import NETWORKS, refine_leaves
from score_core.checkpoints.torch_leaf import Member, TorchLeaf, TorchName, Transform, linear
from score_core.errors import UsageError

__all__ = ["TorchLeaf", "TorchName", "Transform", "torch_leaves", "torch_names"]


def _norm(channels: int) -> list[Member]:
    shape = (1, 1, 1, channels)
    return [Member(path, key, Transform.FLATTEN, shape) for path, key in (("scale", "weight"), ("bias", "bias"))]


def _nin(before: int, after: int) -> list[Member]:
    return [Member("W", "W", Transform.SAME, (before, after)), Member("b", "b", Transform.SAME, (after,))]


def _fir_conv(before: int, after: int) -> list[Member]:
    weight = Member("weight", "weight", Transform.CONV, (3, 3, before, after))
    return [weight, Member("bias", "bias", Transform.SAME, (after,))]


def _inside(module: str, members: Iterable[Member], used: bool = True) -> list[Member]:
    return [m._replace(path=f"{module}/{m.path}", key=f"{module}.{m.key}", used=used) for m in members]


def _attention(channels: int) -> list[Member]:
    members = _inside("GroupNorm_0", _norm(channels))
    for i in range(4):
        members += _inside(f"NIN_{i}", _nin(channels, channels))
    return members


class _Network:
    """The modules of one network, called in order; every method takes and gives numbers of channels."""

    def __init__(self, config: Any) -> None:
        model, self.image_channels = config.model, config.data.num_channels
        plain = model.name.lower() == "ddpm"
        self.nf, self.conditional = model.nf, model.conditional
        self.biggan = not plain and model.resblock_type.lower() == "biggan"
        self.fir = not plain and model.fir
        self.with_conv = model.resamp_with_conv
        self.fourier = not plain and model.embedding_type.lower() == "fourier"
        self.pyramid_out = "none" if plain else model.progressive.lower()
        self.pyramid_in = "none" if plain else model.progressive_input.lower()
        self.combines_by_cat = not plain and model.progressive_combine.lower() == "cat"
        self.block_name = "ResnetBlockDDPM" + "pp" * (not plain)
        if self.biggan:
            self.block_name = "ResnetBlockBigGANpp"
        self.attention_name = "AttnBlock" + "pp" * (not plain)
        self.widths = [model.nf * multiplier for multiplier in model.ch_mult]
        self.attends = [config.data.image_size // 2**i in model.attn_resolutions for i in range(len(self.widths))]
        self.blocks = model.num_res_blocks
        self.leaves: list[TorchLeaf] = []
        self._numbers: Counter[str] = Counter()
        self._listed = 0
        self._call()

    def _module(self, kind: str, members: list[Member], listed: bool = True) -> None:
        module = f"{kind}_{self._numbers[kind]}"
        self._numbers[kind] += 1
        if not listed:
            return
        for member in members:
            key = f"all_modules.{self._listed}.{member.key}"
            shape = member.transform.torch_shape(member.shape)
            name = TorchName(f"{module}/{member.path}", key, member.transform) if member.used else None
            trainable = kind != "GaussianFourierProjection"
            self.leaves.append(TorchLeaf(key, shape, name, member.shape, trainable))
        self._listed += 1

    def _call(self) -> None:
        if self.fourier:
            self._module("GaussianFourierProjection", [Member("W", "W", Transform.SAME, (self.nf,))])
        if self.conditional:
            self._module("Dense", linear(((1 + self.fourier) * self.nf, 4 * self.nf)))
            self._module("Dense", linear((4 * self.nf, 4 * self.nf)))
        skips = self._down()
        h = self._block(skips[-1], skips[-1])
        self._module(self.attention_name, _attention(h))
        self._up(self._block(h, h), skips)

    def _down(self) -> list[int]:
        """Channels of every map that the way up joins."""
        pyramid = self.image_channels
        h = self._conv(pyramid, self.nf)
        skips = [h]
        for level, width in enumerate(self.widths):
            for _ in range(self.blocks):
                h = self._attended(self._block(h, width), level)
                skips.append(h)
            if level == len(self.widths) - 1:
                break
            self._resampled("Downsample", h)
            if self.pyramid_in == "input_skip":
                self._resampler("Downsample", pyramid, pyramid, with_conv=False, listed=False)
                self._module("Combine", _inside("Conv_0", linear((1, 1, pyramid, h))))
                h = 2 * h if self.combines_by_cat else h
            elif self.pyramid_in == "residual":
                self._resampler("Downsample", pyramid, h, with_conv=True)
                pyramid = h
            skips.append(h)
        return skips

    def _up(self, h: int, skips: list[int]) -> None:
        pyramid = 0  # no channels: not begun
        for level in reversed(range(len(self.widths))):
            for _ in range(self.blocks + 1):
                h = self._block(h + skips.pop(), self.widths[level])
            self._attended(h, level)
            if self.pyramid_out == "output_skip":
                if pyramid:
                    self._resampler("Upsample", pyramid, pyramid, with_conv=False, listed=False)
                pyramid = self._projection(h, self.image_channels)
            elif self.pyramid_out == "residual" and not pyramid:
                pyramid = self._projection(h, h)
            elif self.pyramid_out == "residual":
                self._resampler("Upsample", pyramid, h, with_conv=True)
                pyramid = h
            if level:
                self._resampled("Upsample", h)
        if self.pyramid_out != "output_skip":
            self._projection(h, self.image_channels)

    def _conv(self, before: int, after: int) -> int:
        self._module("Conv", linear((3, 3, before, after)))
        return after

    def _projection(self, before: int, after: int) -> int:
        self._module("GroupNorm", _norm(before))
        return self._conv(before, after)

    def _block(self, before: int, after: int, resamples: bool = False) -> int:
        members = _inside("GroupNorm_0", _norm(before)) + _inside("Conv_0", linear((3, 3, before, after)))
        members += _inside("Dense_0", linear((4 * self.nf, after)), used=self.conditional)
        members += _inside("GroupNorm_1", _norm(after)) + _inside("Conv_1", linear((3, 3, after, after)))
        if self.biggan and (resamples or before != after):
            members += _inside("Conv_2", linear((1, 1, before, after)))
        elif before != after:
            members += _inside("NIN_0", _nin(before, after))
        self._module(self.block_name, members)
        return after

    def _attended(self, h: int, level: int) -> int:
        if self.attends[level]:
            self._module(self.attention_name, _attention(h))
        return h

    def _resampled(self, kind: str, h: int) -> None:
        """The features' own resampling."""
        if self.biggan:
            self._block(h, h, resamples=True)
        else:
            self._resampler(kind, h, h, with_conv=self.with_conv)

    def _resampler(self, kind: str, before: int, after: int, *, with_conv: bool, listed: bool = True) -> None:
        members: list[Member] = []
        if with_conv and self.fir:
            members = _inside("Conv2d_0", _fir_conv(before, after))
        elif with_conv:
            members = _inside("Conv_0", linear((3, 3, before, after)))
        self._module(kind, members, listed)


def torch_leaves(config: Any, flavor: str = "pytorch") -> list[TorchLeaf]:
    """Every parameter of the PyTorch network of ``config``, in the order of its state dict.

    Arguments:
        config: the configuration.
        flavor: whose network where the originals differ in their parameters (NCSN and NCSNv2 at 64 pixels).

    Raises:
        UsageError: the port has no such network: another ``model.name``, or a ``ddpm`` without GroupNorm.
    """
    model = config.model
    name = model.name.lower()
    if name in NETWORKS:
        return refine_leaves(config, flavor)
    if name not in ("ncsnpp", "ddpm"):
        raise UsageError(
            f"there is no map of names between Flax and PyTorch for model.name {model.name!r}; "
            f"there is one for 'ncsnpp', 'ddpm', {', '.join(map(repr, NETWORKS))}"
        )
    if name == "ddpm" and model.normalization != "GroupNorm":
        raise UsageError(
            f"the PyTorch port's ddpm always has GroupNorm, but model.normalization is {model.normalization!r}: "
            "these parameters have no place there"
        )
    return _Network(config).leaves


def torch_names(config: Any, flavor: str = "pytorch") -> list[TorchName]:
    """The place of every Flax parameter in the PyTorch state dict, from the hyper-parameters alone.

    Returns: in the order of the modules' calls, by Flax path within a module (RefineNets: in the port's order).

    Raises:
        UsageError: as :func:`torch_leaves`.
    """
    names = [leaf.name for leaf in torch_leaves(config, flavor) if leaf.name]
    if config.model.name.lower() in NETWORKS:
        return names
    return sorted(names, key=lambda name: (int(name.torch_key.split(".")[1]), name.jax_path))
