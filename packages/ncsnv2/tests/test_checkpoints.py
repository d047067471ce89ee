"""Checkpoints of the original: its files are read, resumed, and written again."""

import copy

import goldens
import numpy as np
import pytest
import torch
import torch_goldens
from ncsnv2_cases import golden_config

from ncsnv2.losses import dsm_losses
from ncsnv2.networks import load_network, make_network
from ncsnv2.training import NCSNv2Program
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.list_checkpoint import ResumePoint, read_list_checkpoint, save_list_checkpoint
from score_core.torch.pth import dumps

ARRAYS = goldens.load("ncsnv2", "checkpoints.npz")
CASES = [case for case in goldens.load("ncsnv2", "checkpoints.json") if "file" in case]
CPU = torch.device("cpu")


def config_of(case, **changes):
    keys = ("ngf", "num_classes", "sigma_begin", "sigma_end", "normalization", "ema")
    settings = {f"model__{key}": case[key] for key in keys}
    return golden_config(model__architecture=case["model"], data__image_size=case["image_size"], **settings, **changes)


def arrays_of(case):
    return torch_goldens.case_of(ARRAYS, case["file"].removeprefix("checkpoints/checkpoint_").removesuffix(".pth"))


def read(case):
    return read_list_checkpoint(goldens.path("ncsnv2", case["file"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_contents(case):
    found = read(case)
    assert (found.epoch, found.step) == (case["epoch"], case["step"])
    assert len(found.network) == case["n_state_entries"]
    assert [f"module.{key}" for key in found.network][:4] == case["first_keys"]
    if case["ema"]:
        assert list(found.average)[:3] == case["ema_first_keys"][:3]
    for given, checks in ((found.network, case["model_checks"]), (found.average, case["ema_checks"])):
        for key, facts in (checks or {}).items():
            values = given[key.removeprefix("module.")].astype(np.float64).ravel()
            np.testing.assert_allclose([values.sum(), np.abs(values).sum(), *values[:5]], facts, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_outputs_with_raw_and_averaged_weights(case):
    arrays, checkpoint = arrays_of(case), read(case)
    x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    for name, ema in (("out_raw", False), ("out_ema", True)):
        if name in arrays:
            config = config_of({**case, "ema": ema})
            with torch.no_grad():
                torch_goldens.close(load_network(config, checkpoint, CPU)(x, y), arrays[name], 1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_two_resumed_steps_with_another_eps(case, tmp_path):
    arrays, facts = arrays_of(case), case["resume"]
    program = NCSNv2Program(config_of(case, optim__eps=facts["eps_used"]), CPU, tmp_path)
    program.restore(read(case))
    sigmas = torch.from_numpy(arrays["sigmas"])
    for step in range(2):
        images, labels, z = (torch.from_numpy(arrays[f"resume_{key}"][step]) for key in ("X", "labels", "z"))
        loss = dsm_losses(program.network.train(), images, labels, z, sigmas).mean()
        assert loss.item() == pytest.approx(facts["losses"][step], rel=1e-5)
        program.optimizer.zero_grad()
        loss.backward()
        program.optimizer.step()
        program.after_update()
    parameters = dict(program.raw.named_parameters())
    named = [(parameters, facts["params_after_2_steps"])]
    if program.average is not None:
        named.append((program.average.shadow, facts["ema_after_2_steps"]))
    for given, checks in named:
        for key, expected in checks.items():
            values = given[key].detach().double().flatten()
            found = [values.sum().item(), values.abs().sum().item(), *values[:5].tolist()]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected[1])


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case["file"])
def test_written_again_it_is_the_same(case, tmp_path):
    program = NCSNv2Program(config_of(case), CPU, tmp_path)
    before = read(case)
    program.restore(before)
    data = dumps(program.checkpoint(before.epoch, before.step))
    after = read_list_checkpoint(save_list_checkpoint(tmp_path, data, ResumePoint(before.step, 1, "c", "d")))
    assert list(after.network) == list(before.network)
    for one, other in ((before.network, after.network), (before.average or {}, after.average or {})):
        for key, value in one.items():
            np.testing.assert_array_equal(other[key], value, strict=True)
    for number, state in before.optimizer["state"].items():
        for key, value in state.items():
            np.testing.assert_array_equal(np.asarray(after.optimizer["state"][number][key]), np.asarray(value))
    # and the list as PyTorch's own safe loader sees it
    content = torch.load(tmp_path / f"checkpoint_{before.step}.pth", weights_only=True)
    assert len(content) == case["list_length"] and list(content[0])[:4] == case["first_keys"]


def test_the_average_alone_over_initial_buffers():
    case = CASES[0]
    arrays, config = arrays_of(case), config_of(case)
    network = load_network(config, read(case), CPU, shadow_only=True)
    with torch.no_grad():
        out = network(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
    torch_goldens.close(out, arrays["out_ema_only_shadow_loaded"], 1e-5)


def test_another_network_is_refused_by_name(tmp_path):
    case = CASES[0]
    wider = config_of({**case, "ngf": 4})
    with pytest.raises(CheckpointError, match=r"begin_conv.weight \(3, 3, 3, 3\) instead of \(4, 3, 3, 3\)"):
        load_network(config_of({**case, "ngf": 4, "ema": False}), read(case), CPU)
    with pytest.raises(CheckpointError, match="NCSNv2"):
        NCSNv2Program(wider, CPU, tmp_path).restore(read(case))
    no_average = next(each for each in CASES if not each["ema"])
    with pytest.raises(CheckpointError, match="no averaged parameters"):
        load_network(config_of({**no_average, "ema": True}), read(no_average), CPU)


def test_copying_keeps_spectral_norm_networks_usable(tmp_path):
    config = golden_config(model__architecture="NCSN", model__spec_norm=True)
    torch.manual_seed(0)
    program = NCSNv2Program(config, CPU, tmp_path)
    loss = program.loss(torch.rand(2, 3, 8, 8), torch.Generator().manual_seed(0))
    loss.backward()
    assert program.test(torch.rand(2, 3, 8, 8), torch.Generator().manual_seed(1), 100)["test_loss"] > 0
    assert copy.deepcopy(make_network(config, CPU)) is not None
