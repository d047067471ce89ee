"""Commands of stages that no program has: a checkpoint put into place, a configuration written, a run gone on with."""

from pathlib import Path
from typing import Any

import goldens
import pytest
import yaml

from score_core.checkpoints.convert import detect_format
from score_core.repro import again, configure, place

CHECKPOINT = goldens.path("ncsnv2", "checkpoints/checkpoint_ncsnv2_ema.pth")


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The name of the golden checkpoint's configuration."""
    case = next(case for case in goldens.load("ncsnv2", "checkpoints.json") if case["file"].endswith(CHECKPOINT.name))
    names = ("ngf", "num_classes", "sigma_begin", "sigma_end", "normalization", "ema")
    options = [f"model.{name}={case[name]}" for name in names]
    options += [f"model.architecture={case['model']}", f"data.image_size={case['image_size']}"]
    file = tmp_path / "golden.yml"
    assert configure.main(["ncsnv2:cifar10", str(file), *(f"--option={option}" for option in options)]) == 0
    return f"ncsnv2:{file}"


def test_a_checkpoint_of_the_programs_own_format_is_copied(tmp_path: Path, capsys: Any):
    target = tmp_path / "logs/cell/checkpoint_3.pth"
    assert place.main([str(CHECKPOINT), str(target), "--keep", "ncsnv2"]) == 0
    assert target.read_bytes() == CHECKPOINT.read_bytes()
    assert place.main([str(CHECKPOINT), str(target), "--keep", "ncsnv2"]) == 0, "once more: it is there already"


def test_a_checkpoint_of_another_format_is_converted_and_named_so(config: str, tmp_path: Path, capsys: Any):
    arguments = ["--keep", "pth", "flax", "--config", config]
    assert place.main([str(CHECKPOINT), str(tmp_path / "checkpoint_3"), *arguments]) == 0
    written = tmp_path / "checkpoint_3.pth"
    assert detect_format(written.read_bytes()) == "pth"
    assert "converted to pth" in capsys.readouterr().out


def test_a_configuration_is_written_beside_it(tmp_path: Path, capsys: Any):
    file = tmp_path / "config.yml"
    arguments = [
        str(CHECKPOINT),
        str(tmp_path / "a.pth"),
        "--keep",
        "ncsnv2",
        "--write",
        "ncsn:anneal_cifar10",
        str(file),
    ]
    assert place.main(arguments) == 0
    assert yaml.safe_load(file.read_text())["data"]["dataset"] == "CIFAR10"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "nothing.pth"}, "nothing.pth"),
        ({"config": None}, "expected pth. Convert it with score-convert"),
        ({"config": "ncsnv2:cifar10"}, "checkpoint"),
        ({"present": b"another"}, "is another checkpoint than"),
        ({"damage": True}, "damaged_checkpoint.pth"),
        ({"damage": True, "keep": "ncsnv2"}, "damaged_checkpoint.pth"),
        ({"config": "ncsnv2:cifar10", "keep": "ncsnv2"}, "score-convert --identify"),
    ],
)
def test_what_cannot_be_put_into_place_is_one_error(
    change: dict[str, Any], message: str, config: str, tmp_path: Path, capsys: Any
):
    source = Path(change.get("source", CHECKPOINT))
    target = tmp_path / "place.pth"
    if "damage" in change:
        source = tmp_path / "damaged_checkpoint.pth"
        source.write_bytes(CHECKPOINT.read_bytes()[:5000])
    if "present" in change:
        target.write_bytes(change["present"])
    name = change.get("config", config)
    named = [] if name is None else ["--config", name]
    keep = change.get("keep", "pth")
    assert place.main([str(source), str(target), "--keep", keep, *named]) in (1, 2)
    assert message in capsys.readouterr().err
    assert target.exists() == ("present" in change)


def test_a_configuration_is_changed_and_keeps_the_rest(tmp_path: Path):
    options = ["--option", "sampling.denoise=false", "--option", "fast_fid.step_lr=2e-05"]
    for _ in range(2):
        assert configure.main(["ncsnv2:cifar10", str(tmp_path / "new" / "c.yml"), *options]) == 0
    written = yaml.safe_load((tmp_path / "new" / "c.yml").read_text())
    assert written["sampling"]["denoise"] is False
    assert (written["fast_fid"]["step_lr"], written["fast_fid"]["n_steps_each"]) == (2e-5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ncsnv2:cifar100", "c.yml"], "has no configuration 'cifar100'"),
        (["ncsnv2:cifar10", "c.yml", "--option", "fast_fid.samples=3"], "a key of ncsnv2"),
        (["ncsnv2:cifar10", "c.yml", "--option", "fast_fid.num_samples"], "section.key=value"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(arguments: list[str], message: str, tmp_path: Path, capsys: Any):
    arguments[1] = str(tmp_path / arguments[1])
    assert configure.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_is_gone_on_with_if_there_is_one(tmp_path: Path, capsys: Any):
    file = tmp_path / "checkpoint.pth"
    assert again.command(["--resume", str(file), "json.tool", "-h"]) == ("json.tool", ["-h"])
    file.touch()
    assert again.command(["--resume", str(file), "json.tool", "-h"]) == ("json.tool", ["-h", "--resume"])
    assert again.main(["--resume", str(file)]) == 2
    assert "usage" in capsys.readouterr().err
