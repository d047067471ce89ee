"""Checkpoints of the JAX and the PyTorch program into one another, by the command."""

import json
import re
import shutil

import checkpoint_cases
import goldens
import numpy as np
import pytest
from safetensors.torch import save_file

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.convert import FORMATS, convert, register_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.folders import write_folder
from score_core.checkpoints.pth_format import load_pth, loads_pth
from score_core.checkpoints.sources import checkpoint_file
from score_core.checkpoints.store import save_checkpoint
from score_core.checkpoints.tree import flatten, unflatten
from score_core.errors import UsageError
from score_core.runs.config_record import plain_config
from score_sde.configs.load import load_config

FLAX = goldens.path("score_sde", "checkpoint_real/checkpoint_1")
PTH = goldens.path("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.pth")


@pytest.fixture
def flax_config(tmp_path):
    facts = goldens.load("score_sde", "checkpoint_real/tree.json")
    return checkpoint_cases.config_file(tmp_path, facts["config"], facts["overrides"])


@pytest.fixture
def pth_config(tmp_path):
    facts = goldens.load("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.json")
    return checkpoint_cases.config_file(tmp_path, facts["base"], facts["overrides"])


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


# --- sources


def test_a_work_directory_is_a_source_and_knows_its_configuration(flax_config, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints-meta").mkdir()
    config = load_config(str(flax_config))
    (run / "config.json").write_text(json.dumps(plain_config(config)))
    shutil.copy(FLAX, run / "checkpoints-meta" / "checkpoint_9")
    assert main([str(run), str(tmp_path / "meta"), "--to=pth"]) == 0  # nothing kept yet
    for number in (1, 2, 10):
        save_checkpoint(run / "checkpoints", FLAX.read_bytes(), number)
    assert main([str(run), "--inspect"]) == 0
    for source, name in ((run, "checkpoint_10"), (run / "checkpoints", "checkpoint_10")):
        assert main([str(source), str(tmp_path / "x.pth"), "--to=pth", "--force", f"--report={tmp_path / 'r'}"]) == 0
        report = json.loads((tmp_path / "r").read_text())
        assert report["source"] == {"path": str(run / "checkpoints" / name), "format": "flax"}
        assert report["model"] == {"name": "ncsnpp", "flavor": "jax"} and report["missing"] == report["unused"] == []
        assert len(report["matched"]) + len(report["reshaped"]) > 100
    assert main([str(run), str(tmp_path / "two.pth"), "--to=pth", "--step=2"]) == 0
    capsys.readouterr()
    assert main([str(run), str(tmp_path / "y.pth"), "--to=pth", "--step=3"]) == 1
    assert "no checkpoint number 3 in" in capsys.readouterr().err
    assert main([str(FLAX), "--inspect", "--step=3"]) == 2
    assert main([str(tmp_path), "--inspect"]) == 1
    assert "no checkpoint_N in" in capsys.readouterr().err
    # a damaged file is found by its checksum
    damaged = run / "checkpoints" / "checkpoint_2"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert main([str(run), str(tmp_path / "z.pth"), "--to=pth", "--step=2"]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_folders_of_pytorch_checkpoints_are_sources(pth_config, tmp_path):
    folder = tmp_path / "checkpoints-meta"
    folder.mkdir()
    shutil.copy(PTH, folder / "checkpoint.pth")
    assert checkpoint_file(tmp_path) == folder / "checkpoint.pth"
    shutil.copy(PTH, folder / "checkpoint_3.pth")
    assert checkpoint_file(tmp_path) == checkpoint_file(folder) == folder / "checkpoint_3.pth"
    assert main([str(tmp_path), str(tmp_path / "out"), "--to=flax", f"--config={pth_config}"]) == 0


# --- one set of weights


@pytest.mark.parametrize("weights", ["raw", "ema"])
@pytest.mark.parametrize("format_", ["flax", "pth", "safetensors"])
def test_one_set_of_weights_and_nothing_else(weights, format_, flax_config, tmp_path, capsys):
    """Written by every format, recognised, identified as weights, and made a training state again with a note."""
    alone, back = tmp_path / "alone", tmp_path / "back"
    config = f"--config={flax_config}"
    assert main([str(FLAX), str(alone), f"--to={format_}", f"--weights={weights}", config]) == 0
    assert main([str(alone), "--inspect", config]) == 0
    assert "step " not in capsys.readouterr().out
    verify = ["--verify"] if (format_, weights) == ("safetensors", "ema") else []
    assert main([str(alone), str(back), "--to=flax", config, *verify]) == 0
    assert "raw and averaged ones are the same; step 0" in capsys.readouterr().out
    state, made = msgpack_format.loads(FLAX.read_bytes()), msgpack_format.loads(back.read_bytes())
    wanted = state["optimizer"]["target"] if weights == "raw" else state["params_ema"]
    for found in (made["optimizer"]["target"], made["params_ema"]):
        assert msgpack_format.dumps(found) == msgpack_format.dumps(wanted)
    assert made.keys() == state.keys() and made["step"] == 0
    assert not any(np.any(value) for value in flatten(made["optimizer"]["state"]["param_states"]).values())


def test_a_state_dict_of_somebody_else(pth_config, tmp_path):
    """Without the training state around it, as users save it; with and without ``module.``."""
    import torch

    content = load_pth(PTH)
    for name, strip in (("with", False), ("without", True)):
        state_dict = {k.removeprefix("module.") if strip else k: torch.tensor(v) for k, v in content["model"].items()}
        torch.save(state_dict, tmp_path / f"{name}.pth")
        save = {k: v.contiguous() for k, v in state_dict.items()}
        save_file(save, tmp_path / f"{name}.safetensors")
        for suffix in ("pth", "safetensors"):
            source, target = tmp_path / f"{name}.{suffix}", tmp_path / f"{name}-{suffix}"
            assert main([str(source), str(target), "--to=flax", "--weights=raw", f"--config={pth_config}"]) == 0
            assert target.read_bytes() == (tmp_path / "with-pth").read_bytes()
    both = {**state_dict, "module.sigmas": state_dict["sigmas"]}
    torch.save(both, tmp_path / "both.pth")
    assert main([str(tmp_path / "both.pth"), "--inspect", f"--config={pth_config}"]) == 1


# --- how it is written


def test_group_norms_of_old_and_new_flax(flax_config, tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    assert main([str(FLAX), str(new), "--to=flax", "--norms=new"]) == 0
    before, folded = (flatten(msgpack_format.loads(path.read_bytes())) for path in (FLAX, new))
    assert before.keys() == folded.keys()
    changed = {name for name in before if np.shape(before[name]) != np.shape(folded[name])}
    assert changed and all("GroupNorm" in name and np.ndim(folded[name]) == 1 for name in changed)
    assert all(np.ndim(value) == 1 for name, value in folded.items() if "GroupNorm" in name)
    assert main([str(new), str(old), "--to=flax", f"--config={flax_config}"]) == 0
    assert old.read_bytes() == FLAX.read_bytes()
    # and both forms become the same file of PyTorch
    for source in (FLAX, new):
        assert main([str(source), str(tmp_path / "x.pth"), "--to=pth", f"--config={flax_config}", "--force"]) == 0
        shutil.move(tmp_path / "x.pth", tmp_path / f"{source.name}.pth")
    one, other = (load_pth(tmp_path / f"{source.name}.pth")["model"] for source in (FLAX, new))
    assert all(np.array_equal(one[key], other[key]) for key in one) and one.keys() == other.keys()


def test_keys_without_module(flax_config, tmp_path):
    target = tmp_path / "a.pth"
    assert main([str(FLAX), str(target), "--to=pth", "--no-module", f"--config={flax_config}"]) == 0
    assert all(key == "sigmas" or key.startswith("all_modules.") for key in load_pth(target)["model"])
    assert main([str(target), str(tmp_path / "b"), "--to=flax", f"--config={flax_config}"]) == 0
    assert_trees_equal(*(msgpack_format.loads(p.read_bytes()) for p in (FLAX, tmp_path / "b")), ignore=("rng",))


def test_safetensors_carry_their_configuration(flax_config, tmp_path, capsys):
    safe, pth = tmp_path / "state.safetensors", tmp_path / "a.pth"
    assert main([str(FLAX), str(safe), "--to=safetensors", f"--config={flax_config}"]) == 0
    assert main([str(safe), str(pth), "--to=pth"]) == 0  # none is named here
    assert main([str(FLAX), str(tmp_path / "b.pth"), "--to=pth", f"--config={flax_config}"]) == 0
    assert pth.read_bytes() == (tmp_path / "b.pth").read_bytes()
    # beside the file, where the metadata have none
    plain = tmp_path / "plain.safetensors"
    assert main([str(FLAX), str(plain), "--to=safetensors"]) == 0
    capsys.readouterr()
    assert main([str(plain), str(tmp_path / "c.pth"), "--to=pth"]) == 2
    assert "--config is missing" in capsys.readouterr().err
    plain.with_suffix(".json").write_text(json.dumps(plain_config(load_config(str(flax_config)))))
    assert main([str(plain), str(tmp_path / "c.pth"), "--to=pth"]) == 0
    assert pth.read_bytes() == (tmp_path / "c.pth").read_bytes()


# --- what is said


def test_verification_fails_for_other_weights(flax_config, tmp_path, capsys, monkeypatch):
    """A converter that exchanged two parameters of one shape would be found out."""
    from score_core.checkpoints import torch_conversion

    honest = torch_conversion.to_torch

    def swapped(tree, config, **options):
        made = honest(tree, config, **options)
        names = [key for key in made if key.endswith("NIN_0.W")]
        other = names[0].replace("NIN_0", "NIN_3")
        made[names[0]], made[other] = made[other], made[names[0]]
        return made

    arguments = [str(FLAX), str(tmp_path / "a.pth"), "--to=pth", f"--config={flax_config}", "--verify", "--force"]
    assert main([*arguments, f"--report={tmp_path / 'r'}"]) == 0
    assert capsys.readouterr().out.count(": good") == 2
    assert json.loads((tmp_path / "r").read_text())["within_tolerance"] is True
    monkeypatch.setattr("score_core.checkpoints.pth_state.to_torch", swapped)
    assert main([*arguments, f"--report={tmp_path / 'r'}"]) == 1
    assert "TOO LARGE" in capsys.readouterr().out
    report = json.loads((tmp_path / "r").read_text())
    assert report["within_tolerance"] is False and report["tolerance"] == 1e-4
    assert report["verified"]["raw"]["largest_difference"] > 1e-4 * report["verified"]["raw"]["largest_output"]


def test_missing_and_unused_names_are_errors_and_reported(flax_config, tmp_path, capsys):
    tree = msgpack_format.loads(FLAX.read_bytes())
    tree["params_ema"]["head"] = tree["params_ema"].pop("Conv_0")
    source, report = tmp_path / "checkpoint_1", tmp_path / "r.json"
    source.write_bytes(msgpack_format.dumps(tree))
    for target in ("pth", "flax", "safetensors"):
        out = tmp_path / f"out-{target}"
        assert main([str(source), str(out), f"--to={target}", f"--config={flax_config}", f"--report={report}"]) == 1
        error = capsys.readouterr().err
        assert re.search(r"ema: .*2 missing: Conv_0/(kernel|bias), .*2 unused: head/bias, head/kernel", error)
        content = json.loads(report.read_text())
        assert sorted(content["missing"]) == ["ema: Conv_0/bias", "ema: Conv_0/kernel"]
        assert content["unused"] == ["ema: head/bias", "ema: head/kernel"]
        assert not out.exists()


def test_parameters_that_are_not_finite_are_said(flax_config, tmp_path, capsys):
    tree = msgpack_format.loads(FLAX.read_bytes())
    tree["params_ema"]["Conv_0"]["bias"][0] = np.nan
    source = tmp_path / "checkpoint_1"
    source.write_bytes(msgpack_format.dumps(tree))
    assert main([str(source), str(tmp_path / "a.pth"), "--to=pth", f"--config={flax_config}"]) == 0
    assert "NOT FINITE: 1 ema parameters, such as Conv_0/bias" in capsys.readouterr().out
    assert main([str(source), "--inspect"]) == 0
    assert "NOT FINITE   ema: Conv_0/bias" in capsys.readouterr().out
    # and no verification passes on NaN
    arguments = [str(source), str(tmp_path / "b.pth"), "--to=pth", f"--config={flax_config}", "--verify"]
    assert main(arguments) == 1


@pytest.mark.parametrize("source", [FLAX, PTH], ids=["flax", "pth"])
@pytest.mark.parametrize("name", ["vp/cifar10_ddpmpp", "ve/ncsnv2/cifar10", "vp/ddpm/church"])
def test_a_wrong_architecture_is_refused(source, name, tmp_path, capsys):
    for target in ("flax", "pth", "safetensors"):
        assert main([str(source), str(tmp_path / "out"), f"--to={target}", f"--config={name}"]) == 1
        error = capsys.readouterr().err
        assert error.count("error: ") == 1 and "is not of the configured network" in error
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_or_half_written(flax_config, tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    arguments = ["--to=pth", f"--config={flax_config}", "--force"]
    assert main([str(FLAX), str(folder), *arguments]) == 2  # a folder is never replaced
    assert main([str(FLAX), str(tmp_path / "no" / "a.pth"), *arguments]) == 2
    assert main([str(tmp_path / "absent"), str(tmp_path / "a.pth"), *arguments]) == 1
    assert main([str(FLAX), str(tmp_path / "a.pth"), *arguments, "--config=no/such"]) == 2
    assert list(tmp_path.rglob("*.pth")) == [] and list(folder.iterdir()) == []
    with pytest.raises(CheckpointError, match="cannot write"):
        write_folder(FLAX / "below a file", {"a": b"1"})
    with pytest.raises(CheckpointError, match="exists"):
        write_folder(folder, {"a": b"1", "b/c": b"2"})
    write_folder(tmp_path / "new", {"a": b"1", "b/c": b"2"})
    assert (tmp_path / "new" / "b" / "c").read_bytes() == b"2"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]
