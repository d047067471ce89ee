"""The table of models, what they refuse, and what PyTorch can do with them."""

import copy
import pickle
from typing import Any

import goldens
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from score_core.torch import networks

TINY: dict[str, Any] = {
    "nf": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
    "init_scale": 1.0,
    "image_size": 8,
}
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
SIGMA = torch.tensor([0.1, 2.0])
INDEX = torch.tensor([1, 5])


def filled(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(goldens.fill(name, tuple(parameter.shape))))
    return model.eval()


def assert_close(found, expected, tolerance):
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=0, atol=tolerance * expected.abs().max().item())


def test_unknown_model_lists_the_known_ones(official_config):
    config = official_config("ve/cifar10_ncsnpp", {"model.name": "unet"})
    with pytest.raises(ValueError, match=r"'unet'.*ddpm.*ncsnpp"):
        networks.create_model(config)


def test_users_register_a_model(official_config, monkeypatch):
    monkeypatch.setattr(networks, "MODELS", dict(networks.MODELS))

    @networks.register_model(name="mine")
    class Mine(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.scale = config.model.sigma_min

        def forward(self, x, labels):
            return x * self.scale

    model = networks.create_model(official_config("ve/cifar10_ncsnpp", {"model.name": "mine"}))
    torch.testing.assert_close(model(X, SIGMA), X * 0.01)
    with pytest.raises(ValueError, match="already registered"):
        networks.register_model(name="ncsnpp")(Mine)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progressive", "both"),
        ("progressive_input", "output_skip"),
        ("progressive_combine", "product"),
        ("resblock_type", "biggest"),
        ("embedding_type", "learned"),
    ],
)
def test_ncsnpp_names_the_field_and_its_choices(field, value):
    with pytest.raises(ValueError, match=rf"model\.{field} is '{value}', known: "):
        networks.NCSNpp(**TINY | {field: value})


def test_choices_in_any_case():
    model = networks.NCSNpp(**TINY, embedding_type="Positional", resblock_type="BigGAN")
    assert (model.embedding_type, model.resblock_type) == ("positional", "biggan")


def test_fourier_embedding_needs_continuous_training():
    with pytest.raises(ValueError, match=r"training\.continuous"):
        networks.NCSNpp(continuous=False)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8, 9), (3, 8, 8)])
def test_unsuitable_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\] with H and W divisible by 2"):
        networks.NCSNpp(**TINY)(torch.zeros(shape), SIGMA)


def test_float_labels_are_no_index_of_a_noise_level():
    for model in (networks.DDPM(nf=32, ch_mult=(1,), scale_by_sigma=True), networks.NCSNv2_64(nf=4)):
        with pytest.raises(TypeError, match="float32"):
            model(X, SIGMA)


@pytest.mark.parametrize("scaled", [False, True])
def test_who_divides_by_sigma(scaled, official_config):
    """The PyTorch program's RefineNets do not read the key; the JAX program's do."""
    for name, always in (("ve/ncsnv2/cifar10", True), ("ve/ncsn/cifar10", False)):
        config = official_config(name, {"model.scale_by_sigma": scaled, "model.nf": 4})
        found = [networks.create_model(config, flavor).scale_by_sigma for flavor in ("pytorch", "jax")]
        assert found == [always, scaled]


def test_ncsn_takes_num_scales_where_the_config_lacks_num_classes(official_config):
    for overrides, expected in (({}, 232), ({"model.num_classes": 7}, 7)):
        config = official_config("ve/ncsn/cifar10_124", {"model.nf": 4, **overrides})
        table = networks.create_model(config).get_parameter("ConditionalInstanceNorm2dPlus_0.Embed_0.embedding")
        assert table.shape == (expected, 12)


def test_positional_labels_beyond_the_table_where_nothing_is_divided():
    model = networks.NCSNpp(**TINY, embedding_type="positional", num_scales=5, scale_by_sigma=False)
    assert torch.isfinite(model(X, torch.tensor([998.9, 17.0]))).all()


@pytest.mark.parametrize("resblock_type", ["ddpm", "biggan"])
def test_dropout_only_in_training(resblock_type):
    options: dict[str, Any] = TINY | {"ch_mult": (1,)}
    model = filled(networks.NCSNpp(**options, dropout=0.5, resblock_type=resblock_type))
    assert torch.equal(model(X, SIGMA), model(X, SIGMA))
    model.train()
    torch.manual_seed(0)
    first, second = model(X, SIGMA), model(X, SIGMA)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, model(X, SIGMA))


def test_a_generator_decides_all_initial_values(official_config):
    config = official_config(
        "ve/cifar10_ncsnpp_continuous", {f"model.{k}": v for k, v in TINY.items() if k != "image_size"}
    )
    first, second, other = (
        networks.create_model(config, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not torch.equal(first["Conv_0.weight"], other["Conv_0.weight"])
    assert "sigmas" not in first


VARIANTS = {
    "skips": (lambda: networks.NCSNpp(**TINY, progressive="output_skip", progressive_input="input_skip"), SIGMA),
    "residual": (lambda: networks.NCSNpp(**TINY, progressive="residual", resblock_type="ddpm"), SIGMA),
    "ddpm": (
        lambda: networks.DDPM(nf=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(4,), image_size=8),
        INDEX,
    ),
    "ncsn": (lambda: networks.NCSN(nf=8), INDEX),
    "classifier": (lambda: networks.WideResnet(blocks_per_group=1, channel_multiplier=1), SIGMA),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    make, labels = VARIANTS[request.param]
    return filled(make()), labels


def test_bfloat16_autocast_keeps_float32_outputs_and_gradients(variant):
    model, labels = variant
    expected = model(X, labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(X, labels)
    assert found.dtype == torch.float32
    error = (found - expected).abs().max() / expected.abs().max()
    assert 1e-6 < error < 0.05
    found.square().mean().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_channels_last_copies_and_pickles_give_the_same_numbers(variant):
    model, labels = variant
    expected = model(X, labels)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(X, labels), expected)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert_close(last(X.contiguous(memory_format=torch.channels_last), labels), expected, 1e-5)
    assert_close(copy.deepcopy(model).double()(X.double(), labels), expected.double(), 1e-5)


def test_derivatives_of_higher_order(variant):
    """Forwards (``jvp``) against finite differences, its gradient by the parameters, and a vectorised map."""
    model, labels = variant
    parameters = dict(model.named_parameters())
    direction = X.flip(0) - 0.5

    def along(parameters):
        return jvp(lambda x: functional_call(model, parameters, (x, labels)), (X,), (direction,))[1]

    with networks.higher_derivatives():
        found = along(parameters)
        second = grad(lambda parameters: along(parameters).square().mean())(parameters)
        mapped = vmap(lambda x, label: functional_call(model, parameters, (x[None], label[None]))[0])(X, labels)
    exact = copy.deepcopy(model).double()
    ahead, behind = (exact(X.double() + step * direction.double(), labels) for step in (1e-6, -1e-6))
    assert_close(found, (ahead - behind) / 2e-6, 1e-3)
    assert_close(mapped, model(X, labels), 1e-5)
    assert all(torch.isfinite(value).all() for value in second.values())
    if "GaussianFourierProjection_0.W" in second:
        assert not second["GaussianFourierProjection_0.W"].any()


@pytest.mark.parametrize("name", ["skips", "ddpm"])
def test_compiles_without_a_graph_break(name):
    make, labels = VARIANTS[name]
    model = filled(make())
    torch.compiler.reset()
    # This back end captures forward and backward without needing a C++ compiler.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = X.clone().requires_grad_()
    expected = model(x, labels)
    found = compiled(x, labels)
    assert_close(found, expected, 1e-6)
    gradients = [torch.autograd.grad(out.square().mean(), x)[0] for out in (found, expected)]
    assert_close(gradients[0], gradients[1], 1e-5)
