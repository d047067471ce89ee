"""Checkpoints the original wrote, checkpoints it can read, resuming from its files, and score-convert."""

import io
from collections import OrderedDict

import goldens
import numpy as np
import pytest
import torch
from ncsn_cases import CASES, RecordedDraws, program_of, recorded_steps, update
from torch import nn
from torch_goldens import fill

from ncsn import checkpoint_formats, networks
from score_core.checkpoints.__main__ import main as score_convert
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.list_checkpoint import ResumePoint, read_list_checkpoint, save_list_checkpoint
from score_core.torch.pth import dumps

TREES = goldens.load("ncsn", "checkpoints.json")
PARAMETERS = goldens.load("ncsn", "params.json")
FILES = {name: goldens.path("ncsn", f"checkpoints/{name}") for name in TREES}
# The third file, of ScoreNet, is 1 MB of the same container and was compared once.
PRESENT = [name for name, path in FILES.items() if path.is_file()]


@pytest.mark.parametrize("name", PRESENT)
def test_files_of_the_original_are_read(name):
    tree, read = TREES[name], read_list_checkpoint(FILES[name])
    assert (read.epoch, read.step, read.average, read.resume) == (None, None, None, None)
    assert len(read.network) == tree["n_model"]
    for key, (total, absolute) in tree["model_checksums"].items():
        value = read.network[key.removeprefix("module.")].astype(np.float64)
        np.testing.assert_allclose([value.sum(), np.abs(value).sum()], [total, absolute], rtol=1e-5, atol=1e-6)
    assert list(read.optimizer["state"]) == list(range(tree["n_state"]))
    for i, (total, largest) in enumerate(tree["exp_avg_checksums_in_order"]):
        moment = read.optimizer["state"][i]["exp_avg"].astype(np.float64)
        np.testing.assert_allclose(moment.sum(), total, rtol=1e-4, atol=1e-6)
        del largest
    assert {int(np.asarray(state["step"])) for state in read.optimizer["state"].values()} == {tree["step_value"]}


MODELS = {
    "CondRefineNetDilated_anneal_MNIST": lambda: networks.CondRefineNetDilated(1, 64, 10),
    "CondRefineNetDilated_anneal_CIFAR10_CELEBA_SVHN": lambda: networks.CondRefineNetDilated(3, 128, 10),
    "RefineNetDilated_baseline_MNIST": lambda: networks.RefineNetDilated(1, 64),
    "RefineNetDilated_baseline_CIFAR10_CELEBA": lambda: networks.RefineNetDilated(3, 128),
    "CondRefineNetDeeperDilated_unused_ngf128": lambda: networks.CondRefineNetDeeperDilated(3, 128, 10),
    "ResScore_scorenet": lambda: networks.ResScore(32, 32),
    "ToyMLP_toy": networks.ToyMLP,
}


@pytest.mark.parametrize("name", MODELS)
def test_names_order_and_shapes_at_full_size(name, monkeypatch):
    for draw in ("uniform_", "normal_"):
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    expected = PARAMETERS[name]
    model = MODELS[name]()
    assert [[key, list(value.shape)] for key, value in model.state_dict().items()] == expected["tensors"]
    assert [key for key, _ in model.named_parameters()] == [key for key, _ in expected["tensors"]]
    assert sum(value.numel() for value in model.parameters()) == expected["total"]


def test_every_full_size_model_is_here():
    assert PARAMETERS.keys() == MODELS.keys()


@pytest.mark.parametrize(("name", "prefix"), [("AnnealRunner/dsm_adam", "module."), ("ScoreNetRunner/dsm_adam", "")])
def test_ours_are_lists_that_pytorch_reads_with_its_restricted_loader(name, prefix):
    """[OrderedDict, dict] with the prefix of DataParallel where the original has it, moments by number."""
    program = program_of(CASES[name])
    batch, draws = next(recorded_steps(name))
    update(program, batch, RecordedDraws(draws))
    found = torch.load(io.BytesIO(dumps(program.checkpoint(0, 1))), weights_only=True)
    assert isinstance(found, list)
    network, optimizer = found
    assert isinstance(network, OrderedDict)
    assert [key.removeprefix(prefix) for key in network] == list(program.raw.state_dict())
    assert all(key.startswith(prefix) for key in network)
    (group,) = optimizer["param_groups"]
    assert group["params"] == list(range(len(network)))
    assert {key: group[key] for key in ("lr", "betas", "eps", "weight_decay", "amsgrad")} == {
        "lr": 0.001,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
    }
    assert set(optimizer["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_resuming_from_a_file_of_the_original():
    """Its next three losses, Adam's moments matched to parameters by their order."""
    name = "AnnealRunner/resume"
    program = program_of(CASES[name])
    program.restore(read_list_checkpoint(FILES["anneal_dsm_adam_step2.pth"]))
    expected = [value for tag, value, _ in CASES[name]["scalars"] if tag == "loss"]
    steps = list(recorded_steps(name))
    assert len(steps) == len(expected) == 3
    for (batch, draws), loss in zip(steps, expected, strict=True):
        np.testing.assert_allclose(update(program, batch, RecordedDraws(draws)), loss, rtol=1e-4)


def test_a_checkpoint_of_another_runner_is_refused():
    program = program_of(CASES["BaselineRunner/dsm_adam"])
    with pytest.raises(CheckpointError, match="is not a checkpoint of the configured network"):
        program.restore(read_list_checkpoint(FILES["anneal_dsm_adam_step2.pth"]))


CONFIG = """
data: {dataset: MNIST, image_size: 16, channels: 1, logit_transform: false}
model: {sigma_begin: 1, sigma_end: 0.01, num_classes: 10, ngf: 4}
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "tiny.yml"
    file.write_text(CONFIG)
    return f"--config=ncsn:{file}"


def flat(path):
    read = read_list_checkpoint(path)
    moments = {(n, k): np.asarray(v) for n, state in read.optimizer["state"].items() for k, v in state.items()}
    return read.network, moments, read.optimizer["param_groups"]


@pytest.mark.parametrize("target", ["safetensors", "flax"])
def test_conversion_and_back_is_exact(target, tmp_path, config, capsys):
    """Weights, moments, their order and the optimiser's settings."""
    source, middle, back = FILES["anneal_dsm_adam_step2.pth"], tmp_path / "a", tmp_path / "b.pth"
    assert score_convert([str(source), str(middle), f"--to={target}", config]) == 0
    assert score_convert([str(middle), str(back), "--to=ncsn", config]) == 0
    (network, moments, groups), (network2, moments2, groups2) = flat(source), flat(back)
    assert list(network) == list(network2)
    # The training state of score_sde keeps the learning rate in float32.
    np.testing.assert_allclose(groups2[0].pop("lr"), groups[0].pop("lr"), rtol=1e-7)
    assert groups == groups2
    for one, other in ((network, network2), (moments, moments2)):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
    assert next(iter(torch.load(back, weights_only=True)[0])) == "module.begin_conv.weight"
    assert "98 parameters copied, 75 transposed" in capsys.readouterr().out


def test_the_configuration_beside_a_checkpoint_is_taken(tmp_path):
    """And score_sde's PyTorch network with the converted weights gives NCSN's scores."""
    from score_core.checkpoints.formats import Report
    from score_core.checkpoints.safetensors_state import read_safetensors
    from score_core.torch.networks import create_model, load_flax_tree

    (tmp_path / "checkpoint.pth").write_bytes(FILES["anneal_dsm_adam_step2.pth"].read_bytes())
    (tmp_path / "config.yml").write_text(CONFIG)
    out = tmp_path / "out"
    assert score_convert([str(tmp_path / "checkpoint.pth"), str(out), "--to=safetensors"]) == 0
    made = checkpoint_formats.sde_config(str(tmp_path / "config.yml"))
    theirs = create_model(made).eval()
    load_flax_tree(theirs, read_safetensors(out.read_bytes(), made, Report(), out)["optimizer"]["target"])
    ours = networks.CondRefineNetDilated(1, 4, 10).eval()
    network = read_list_checkpoint(tmp_path / "checkpoint.pth").network
    ours.load_state_dict({key: torch.tensor(value) for key, value in network.items()})
    x, labels = torch.rand(2, 1, 16, 16), torch.tensor([0, 9])
    torch.testing.assert_close(theirs(x, labels), ours(x, labels), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_converted_is_said(tmp_path, config, capsys):
    target = tmp_path / "f"
    baseline, anneal = FILES["baseline_dsm_adam_step2.pth"], FILES["anneal_dsm_adam_step2.pth"]
    assert score_convert([str(baseline), str(target), "--to=flax", config]) != 0
    assert "not of the configured network" in capsys.readouterr().err
    assert score_convert([str(anneal), str(target), "--to=flax"]) == 2
    assert "--config" in capsys.readouterr().err
    assert score_convert([str(anneal), str(target), "--to=flax", "--config=ncsn:scorenet"]) == 2
    assert "no configuration of NCSN" in capsys.readouterr().err
    assert not target.exists()


def test_configurations_that_can_be_named():
    known = checkpoint_formats.names()
    assert {"anneal", "anneal_cifar10", "digits"} <= set(known)
    assert not {"toy", "scorenet", "baseline_digits"} & set(known)
    for name in known:
        assert checkpoint_formats.sde_config(name).model.name == "ncsn"


def test_damaged_files_are_refused_by_name(tmp_path):
    good = FILES["anneal_dsm_adam_step2.pth"].read_bytes()
    program = program_of(CASES["AnnealRunner/dsm_adam"])
    for content, text in (
        (good[: len(good) // 2], "damaged"),
        (b"cos\nsystem\n(S'true'\ntR.", "not read|damaged|no checkpoint"),
    ):
        (tmp_path / "checkpoint.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=text):
            read_list_checkpoint(tmp_path / "checkpoint.pth")
    fill(program.raw)
    saved = save_list_checkpoint(tmp_path, dumps(program.checkpoint(0, 7)), ResumePoint(7, 1, "", ""))
    assert read_list_checkpoint(saved).resume == ResumePoint(7, 1, "", "")
