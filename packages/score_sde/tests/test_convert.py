"""Checkpoints of the JAX and the PyTorch program into one another, by the command."""

import goldens
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.convert import FORMATS, convert, register_format
from score_core.checkpoints.pth_format import load_pth, loads_pth
from score_core.checkpoints.tree import flatten, unflatten
from score_core.errors import UsageError

FLAX = goldens.path("score_sde", "checkpoint_real/checkpoint_1")
PTH = goldens.path("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.pth")

CONFIG = """
from score_sde.configs.load import load_config

def get_config():
    config = load_config("{base}")
    with config.unlocked():
        for key, value in {overrides}.items():
            section, _, name = key.rpartition(".")
            owner = config[section] if section else config
            owner[name] = tuple(value) if isinstance(value, list) else value
    return config
"""


def config_file(folder, base, overrides):
    path = folder / "config.py"
    base = base.removeprefix("configs/").removesuffix(".py")
    path.write_text(CONFIG.format(base=base, overrides=overrides))
    return path


@pytest.fixture
def flax_config(tmp_path):
    facts = goldens.load("score_sde", "checkpoint_real/tree.json")
    return config_file(tmp_path, facts["config"], facts["overrides"])


@pytest.fixture
def pth_config(tmp_path):
    facts = goldens.load("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.json")
    return config_file(tmp_path, facts["base"], facts["overrides"])


def assert_trees_equal(one, other, ignore=()):
    one, other = flatten(one), flatten(other)
    assert [name for name in one if name not in ignore] == [name for name in other if name not in ignore]
    for name, value in one.items():
        if name not in ignore and not isinstance(value, dict):
            assert np.asarray(value).dtype == np.asarray(other[name]).dtype, name
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_the_jax_programs_checkpoint_survives_a_trip_through_pytorch(flax_config, tmp_path, capsys):
    pth, back = tmp_path / "checkpoint_1.pth", tmp_path / "checkpoint_1"
    assert main([str(FLAX), str(pth), "--to=pth", f"--config={flax_config}"]) == 0
    assert "note: the random key has no place" in capsys.readouterr().out
    assert main([str(pth), str(back), "--to=flax", f"--config={flax_config}"]) == 0
    before, after = (msgpack_format.loads(path.read_bytes()) for path in (FLAX, back))
    assert list(before) == list(after)
    # normalisation parameters come back in the old Flax shape that the file has
    assert_trees_equal(before, after, ignore=("rng",))


def test_the_ports_checkpoint_survives_a_trip_through_flax(pth_config, tmp_path):
    flax, back = tmp_path / "checkpoint_0", tmp_path / "checkpoint_0.pth"
    assert main([str(PTH), str(flax), "--to=flax", f"--config={pth_config}"]) == 0
    assert main([str(flax), str(back), "--to=pth", f"--config={pth_config}", "--verbose"]) == 0
    before, after = load_pth(PTH), load_pth(back)
    assert list(before["model"]) == list(after["model"])
    for key, value in before["model"].items():
        # the noise levels are computed anew
        np.testing.assert_allclose(after["model"][key], value, rtol=1e-12 if key == "module.sigmas" else 0)
    assert before["step"] == after["step"]
    assert before["ema"]["decay"] == pytest.approx(after["ema"]["decay"], rel=1e-7)  # float32 in Flax
    assert before["ema"]["num_updates"] == after["ema"]["num_updates"]
    for one, other in zip(before["ema"]["shadow_params"], after["ema"]["shadow_params"], strict=True):
        np.testing.assert_array_equal(one, other)
    assert before["optimizer"]["state"].keys() == after["optimizer"]["state"].keys()
    for number, entry in before["optimizer"]["state"].items():
        for name, value in entry.items():
            np.testing.assert_array_equal(after["optimizer"]["state"][number][name], value)
    (group,), (again,) = before["optimizer"]["param_groups"], after["optimizer"]["param_groups"]
    assert again["lr"] == pytest.approx(group["lr"], rel=1e-6)  # the warm-up's, of the last step
    assert {k: v for k, v in group.items() if k != "lr"} == {k: v for k, v in again.items() if k != "lr"}


def test_pytorch_itself_reads_what_is_written(flax_config, tmp_path):
    import torch

    path = tmp_path / "checkpoint_1.pth"
    assert main([str(FLAX), str(path), "--to=pth", f"--config={flax_config}"]) == 0
    content = torch.load(path, weights_only=True)
    assert all(key.startswith("module.") for key in content["model"])
    parameters = [torch.nn.Parameter(v) for k, v in content["model"].items() if k != "module.sigmas"]
    torch.optim.Adam(parameters).load_state_dict(content["optimizer"])


@pytest.mark.parametrize("source", [FLAX, PTH], ids=["flax", "pth"])
def test_safetensors_hold_everything(source, request, tmp_path):
    config = request.getfixturevalue("flax_config" if source is FLAX else "pth_config")
    middle, back, direct = (tmp_path / name for name in ("state.safetensors", "back", "direct"))
    assert main([str(source), str(middle), "--to=safetensors", f"--config={config}"]) == 0
    assert main([str(middle), str(back), "--to=flax", f"--config={config}"]) == 0
    assert main([str(source), str(direct), "--to=flax", f"--config={config}"]) == 0
    assert_trees_equal(*(msgpack_format.loads(path.read_bytes()) for path in (direct, back)))


def test_inspect_and_identify(flax_config, capsys):
    assert main([str(FLAX), "--inspect", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "format       flax" in out and "step         2 (Adam: 2)" in out and "Conv_0/kernel  (3, 3, " in out
    assert main([str(FLAX), "--identify"]) == 1  # a tiny network: none of the packaged ones
    assert "no packaged configuration" in capsys.readouterr().out


def test_official_parameters_are_identified(tmp_path, capsys):
    index = goldens.load("score_sde", "params_index.json")
    leaves = goldens.load("score_sde", index["configs/subvp/cifar10_ddpm_continuous.py"]["file"])
    leaves = leaves["params"] if isinstance(leaves, dict) else leaves
    tree = unflatten({path: np.zeros(shape, np.int8) for path, shape, *_ in leaves})  # bytes: only shapes count
    file = tmp_path / "checkpoint_26"
    file.write_bytes(msgpack_format.dumps({"step": 0, "optimizer": {"target": tree}}))
    assert main([str(file), "--identify"]) == 0
    out = capsys.readouterr()
    fitting = out.out.partition("\n\n")[0].split()
    assert "subvp/cifar10_ddpm_continuous" in fitting and "vp/ddpm/cifar10" in fitting
    assert "vp/cifar10_ddpmpp_continuous" not in fitting and "vp/ddpm/cifar10_unconditional" not in fitting
    assert "subvp/cifar10_ddpm_continuous\n  config" in out.out  # the official checkpoint
    assert "ve/ncsnv2/cifar10" not in out.err  # compared, too


def test_what_does_not_fit_is_refused_and_nothing_is_written(flax_config, pth_config, tmp_path, capsys):
    target = tmp_path / "out"
    wrong = [str(PTH), str(target), "--to=flax", "--config=vp/cifar10_ddpmpp"]
    assert main(wrong) == 1
    assert "missing" in capsys.readouterr().err
    for arguments, message in [
        ([str(PTH), str(target), "--to=flax"], "--config is missing"),
        ([str(PTH), str(target), "--to=onnx", f"--config={pth_config}"], "unknown format 'onnx'"),
        ([str(PTH), str(target), f"--config={pth_config}"], "--to is missing"),
        ([str(PTH), "--inspect"], "needs the configuration"),
        ([str(flax_config), "--inspect"], "none of the known formats"),
        ([str(PTH)], "give one of"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not target.exists()
    target.write_text("precious")
    assert main([str(PTH), str(target), "--to=flax", f"--config={pth_config}"]) == 2
    assert target.read_text() == "precious"


def test_a_package_can_add_a_format(pth_config):
    with pytest.raises(ValueError, match="already registered"):
        register_format("pth", FORMATS["pth"])
    shouting = FORMATS["flax"]._replace(recognises=lambda data: False, write=lambda tree, config, report: b"STATE")
    register_format("shouting", shouting)
    try:
        assert convert(FLAX, "shouting", None)[0] == b"STATE"
    finally:
        FORMATS.pop("shouting")
    with pytest.raises(UsageError, match="unknown format"):
        convert(FLAX, "shouting", None)


def test_damaged_files_of_every_format_are_errors(pth_config, tmp_path, capsys):
    chance = np.random.default_rng(0)
    for source in (FLAX, PTH):
        data = source.read_bytes()
        for _ in range(25):
            file = tmp_path / "damaged"
            file.write_bytes(data[: chance.integers(1, len(data))])
            assert main([str(file), "--inspect", f"--config={pth_config}"]) in (1, 2)
            assert capsys.readouterr().err.startswith("error: ")
    assert loads_pth(PTH.read_bytes())["step"] == 2
