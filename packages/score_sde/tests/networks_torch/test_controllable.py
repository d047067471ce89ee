"""Inpainting and colourisation with a real network, against the PyTorch program; its own names and signatures."""

import goldens
import numpy as np
import pytest
import torch
from torch import nn

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.correctors import get_corrector
from score_core.data.scalers import get_data_inverse_scaler
from score_core.errors import UsageError
from score_core.predictors import get_predictor
from score_core.sdes import VESDE, VPSDE, get_sde
from score_core.torch import networks
from score_core.torch.networks.wideresnet import get_logit_fn
from score_sde import controllable_generation_torch as controllable_generation

GOLDEN, FACTS = goldens.load("core", "torch/controllable.npz"), goldens.load("core", "torch/controllable.json")
NET = "net/ve_ncsnpp_continuous"


class Replay:
    """The program's draws one after the other, whoever asks."""

    def __init__(self, draws):
        self.draws = iter(torch.tensor(draws))

    def prior(self):
        return (), next(self.draws)

    def begin(self, carry, i):
        return carry

    def draw(self, carry, *_):
        return carry, next(self.draws)

    corrector = predictor = measurement = draw


class Toy(nn.Module):
    """The stand-in network of the golden files."""

    def __init__(self, ve):
        super().__init__()
        self.ve = ve
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.4) / (label**2 + 0.09) if self.ve else 0.7 * x * (1 + 0.0005 * label) + 0.05


RULES = get_predictor("reverse_diffusion"), get_corrector("langevin")


@pytest.mark.parametrize("kind", ["inpaint", "colorize"])
def test_a_real_network(official_config, original_key, monkeypatch, kind):
    """The settings are those of the specification: N = 10, mask 1 in the left half."""
    facts = FACTS["cases"][NET]
    config = official_config(facts["base"], facts["overrides"])
    sde = get_sde("vesde", N=config.model.num_scales, **config.model)
    model = networks.create_model(config).eval()
    keys = original_key(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(goldens.fill(keys[name], tuple(parameter.shape))))
    noise = Replay(GOLDEN[f"{NET}/noise_{kind}"])
    monkeypatch.setattr(controllable_generation, "_noise", lambda *_: noise)
    settings = (sde, *RULES, get_data_inverse_scaler(config.data.centered), facts["snr"])
    given = torch.tensor(GOLDEN[f"{NET}/{kind}_input"])
    if kind == "inpaint":
        mask = torch.zeros(8)
        mask[:4] = 1
        sampler = controllable_generation.get_pc_inpainter(*settings, continuous=True, eps=facts["eps"])
        images = sampler(model, given, mask)
    else:
        images = controllable_generation.get_pc_colorizer(*settings, continuous=True, eps=facts["eps"])(model, given)
    assert next(noise.draws, None) is None
    expected = GOLDEN[f"{NET}/{kind}"]
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def arguments(name):
    """What the functions take up to ``snr``, and after it."""
    sizes = FACTS["sde_parameters"]
    ve = name == "ve"
    n = FACTS["N"]
    sde = VESDE(sizes["smin"], sizes["smax"], n) if ve else VPSDE(sizes["bmin"], sizes["bmax"], n)
    options = {"continuous": True, "eps": 1e-5 if ve else 1e-3}
    return sde, get_data_inverse_scaler(centered=not ve), options


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_from_the_seed_of_the_default_generator_to_the_images_of_the_program(name):
    sde, inverse_scaler, options = arguments(name)
    torch.manual_seed(FACTS["seed"])
    inpainter = controllable_generation.get_pc_inpainter(sde, *RULES, inverse_scaler, 0.16, **options)
    images = inpainter(Toy(name == "ve"), torch.tensor(GOLDEN[f"{name}/image"]), torch.tensor(GOLDEN["mask"]))
    expected = GOLDEN[f"{name}/reverse_diffusion/langevin/denoise1/pf0/inpaint"]
    np.testing.assert_allclose(images, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_none_stands_for_no_rule_and_the_generator_can_be_given():
    sde, inverse_scaler, options = arguments("ve")
    inpainter = controllable_generation.get_pc_inpainter(sde, None, None, inverse_scaler, 0.16, **options)
    image, mask = torch.tensor(GOLDEN["ve/image"]), torch.tensor(GOLDEN["mask"])
    images = inpainter(Toy(True), image, mask, torch.Generator().manual_seed(FACTS["seed"]))
    expected = GOLDEN["ve/None/None/denoise1/pf0/inpaint"]
    np.testing.assert_allclose(images, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_a_wrong_mask_is_refused():
    sde, inverse_scaler, options = arguments("ve")
    inpainter = controllable_generation.get_pc_inpainter(sde, *RULES, inverse_scaler, 0.16, **options)
    image = torch.tensor(GOLDEN["ve/image"])
    with pytest.raises(UsageError, match="> 127 for bytes"):
        inpainter(Toy(True), image, torch.tensor([0, 255], dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"mask of shape \(5,\) does not fit images of shape \(2, 3, 4, 4\)"):
        inpainter(Toy(True), image, torch.ones(5))


def tiny_classifier():
    model = networks.WideResnet(blocks_per_group=1, channel_multiplier=1)
    leaves = networks.to_flax_tree(model)
    return leaves, goldens.fill_tree(leaves)


def test_the_classifier_of_a_checkpoint_leads_the_sampler(tmp_path):
    """Its logits are the original's; its gradient moves the samples; labels out of bounds are refused."""
    golden = goldens.load("score_sde", "wideresnet.npz")
    (tmp_path / "checkpoint_7").write_bytes(msgpack_format.dumps(tiny_classifier()[1]))
    for path in (tmp_path, tmp_path / "checkpoint_7"):
        classifier = controllable_generation.create_classifier(path)
    x = torch.tensor(golden["b1/x"]).permute(0, 3, 1, 2)
    logits = get_logit_fn(classifier)(x, torch.tensor(golden["b1/sigma"]))
    expected = golden["b1/logits_preprocessed"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    sampler = controllable_generation.get_pc_conditional_sampler(
        VPSDE(0.1, 4.0, 5), classifier, (2, 3, 8, 8), *RULES, get_data_inverse_scaler(True), 0.1, continuous=True
    )
    one, same, other = (
        sampler(Toy(False), torch.tensor(labels), torch.Generator().manual_seed(1))
        for labels in ([1, 2], [1, 2], [3, 2])
    )
    np.testing.assert_array_equal(one, same)
    assert not torch.equal(one[0], other[0])
    for labels in ([10, 0], [-1, 0]):
        with pytest.raises(UsageError, match="knows the classes 0 to 9"):
            sampler(Toy(False), torch.tensor(labels))
    with pytest.raises(UsageError, match="labels are integers"):
        sampler(Toy(False), torch.tensor([0.5, 1.0]))


def test_a_classifier_that_is_not_there_or_another_network(tmp_path):
    with pytest.raises(MissingCheckpointError, match="give the classifier's file or folder"):
        controllable_generation.create_classifier(tmp_path)
    (tmp_path / "other").write_bytes(msgpack_format.dumps({"Dense_0": {"bias": np.zeros(512, np.float32)}}))
    with pytest.raises(CheckpointError, match="does not hold the parameters of a noise-conditional classifier"):
        controllable_generation.create_classifier(tmp_path / "other")
    tree = tiny_classifier()[1]
    tree["Dense_2"]["kernel"] = tree["Dense_2"]["kernel"][:5]
    (tmp_path / "spoilt").write_bytes(msgpack_format.dumps(tree))
    with pytest.raises(CheckpointError, match="Dense_2/kernel"):
        controllable_generation.create_classifier(tmp_path / "spoilt")
