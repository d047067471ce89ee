"""The command line: the original's flags, folders and refusals, its samples for a seed, resuming exactly."""

import logging
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import goldens
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch_goldens import close, fill

from ncsn import networks
from ncsn.__main__ import main, parser
from ncsn.config import PACKAGED, complete, list_configs, load_config
from ncsn.runners.anneal import AnnealRunner
from score_core.checkpoints.list_checkpoint import ResumePoint, read_list_checkpoint, save_list_checkpoint
from score_core.runs.namespace_config import dump_namespace, to_dict, to_namespace
from score_core.runs.signals import GracefulStop, StopRequested
from score_core.torch.pth import dumps
from score_core.torch.score_runner import seed_everything

BEHAVIOUR = goldens.load("ncsn", "cli_behaviour.json")
CONFIGS = goldens.load("ncsn", "configs.json")
TINY = ["--config", "digits.yml"] + [
    f"--option={option}"
    for option in (
        "data.image_size=8",
        "model.ngf=2",
        "model.num_classes=3",
        "training.batch_size=4",
        "training.n_iters=5",
        "training.snapshot_freq=2",
        "sampling.n_steps_each=7",
    )
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORE_DATA", str(tmp_path / "no data here"))


def files(folder):
    """Names in a folder, without hidden ones."""
    return sorted(file.name for file in Path(folder).iterdir() if not file.name.startswith("."))


def error_of(capsys, *arguments, code=2):
    assert main(arguments) == code
    return capsys.readouterr().err


def test_flags_of_the_original():
    import json

    ours = {option: action for action in parser()._actions for option in action.option_strings}
    for flag in json.loads(goldens.path("ncsn", "cli_help.txt").read_text())["flags"]:
        for option in flag["flags"]:
            action = ours[option]
            assert action.dest == flag["dest"]
            switch = flag["type"] == "store_true"
            assert (action.nargs == 0) == switch
            if not switch:
                assert (action.type or str).__name__ == flag["type"]
            # Without them: the original's defaults, or for these two those of a resumed run.
            assert flag["dest"] in ("config", "seed") or action.default == flag["default"]
    for short in ("--see", "--com", "--te", "--v", "--d", "--resu", "--im"):
        assert sum(option.startswith(short) for option in ours) == 1, short


@pytest.mark.parametrize("name", ["anneal", "baseline", "scorenet", "toy"])
def test_configurations_of_the_original(name):
    assert to_dict(load_config(name)) == CONFIGS[f"configs/{name}.yml"]


def test_blocks_to_be_uncommented_are_configurations():
    for key, expected in CONFIGS["_commented_alternatives"].items():
        name, dataset = re.fullmatch(r"configs/(\w+)\.yml \[(\w+) block.*", key).groups()
        assert to_dict(load_config(f"{name}_{dataset.lower()}")) == expected


def write_mnist(folder):
    """MNIST's files with 24 and 8 random images."""
    folder.mkdir(parents=True)
    for part, count in (("train", 24), ("t10k", 8)):
        images = np.random.RandomState(count).randint(0, 256, (count, 28, 28)).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


@pytest.fixture
def mnist(tmp_path):
    write_mnist(tmp_path / "run" / "datasets" / "mnist")


SHORT = [
    f"--option={o}" for o in ("model.ngf=2", "training.batch_size=2", "training.n_iters=5", "training.snapshot_freq=2")
]


@pytest.mark.parametrize("runner", ["AnnealRunner", "BaselineRunner"])
def test_training_on_mnist_as_the_original(runner, mnist, capsys):
    """The original's command with the original's configuration; files, config.yml and log as there."""
    config = "anneal.yml" if runner == "AnnealRunner" else "baseline.yml"
    assert main(["--runner", runner, "--config", config, "--doc", "t", *SHORT]) == 0
    golden = BEHAVIOUR["train_anneal_tiny_mnist" if runner == "AnnealRunner" else "train_baseline_tiny_mnist"]
    expected = ["checkpoint.pth", "checkpoint_2.pth", "checkpoint_4.pth", "config.yml", "stdout.txt"]
    assert files("run/logs/t") == expected
    assert set(golden["checkpoints"]) <= set(expected)
    assert [f.split(".tfevents.")[0] for f in files("run/tensorboard/t")] == ["events.out"]
    if runner == "AnnealRunner":
        assert Path("run/logs/t/config.yml").read_text() == BEHAVIOUR["config_yml_saved"]
    out = capsys.readouterr().out.splitlines()
    assert len(out) == golden["stdout_lines"]
    assert (out[0], out[1][:10], out[2]) == (">" * 80, "Namespace(", "<" * 80)
    lines = Path("run/logs/t/stdout.txt").read_text().splitlines()
    steps = [line for line in lines if " - step: " in line]
    assert [int(line.split("step: ")[1].split(",")[0]) for line in steps] == [1, 2, 3, 4, 5]
    assert re.fullmatch(r"INFO - \w+\.py - \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - step: 1, loss: \d+\.\d+", steps[0])
    heads = ["Using device: ", "Writing log file to ", "Exp instance id = ", "Exp comment = ", "Config ="]
    assert all(line.split(" - ")[3].startswith(head.strip()) for line, head in zip(lines, heads, strict=False))


def test_missing_data_are_explained(capsys):
    text = error_of(capsys, "--runner", "AnnealRunner", "--config", "anneal.yml")
    assert "dataset 'MNIST' was not found" in text
    assert "train-images-idx3-ubyte.gz" in text
    assert "digits.yml" in text
    assert not Path("run/logs").exists()


REFUSED = [
    (["--runner", "GanRunner", *TINY], "unknown --runner 'GanRunner'; expected one of AnnealRunner"),
    (["--config", "nothing.yml"], r"no configuration 'nothing.yml'.*anneal.yml"),
    (["--verbose", "loud", *TINY], "--verbose loud: no such level"),
    (["--resume_training", "--doc", "none", *TINY], r"no checkpoint .*folder run/logs/none does not exist"),
    (["--test", "--doc", "none"], r"no run/logs/none/config\.yml"),
    (["--runner", "ToyRunner", "--test"], "ToyRunner has no --test"),
    (["--runner", "ScoreNetRunner", "--test"], "ScoreNetRunner has no --test"),
    (["--doc", "../x", *TINY], "must name a folder below"),
    ([*TINY, "--option", "training.n_iters=0"], "training.n_iters is 0, expected a whole number above 0"),
    ([*TINY, "--option", "training.algo=foo"], "training.algo is 'foo', expected dsm or ssm"),
    ([*TINY, "--option", "optim.optimizer=Foo"], "optim.optimizer is 'Foo'"),
    ([*TINY, "--option", "data.dataset=nothing"], "unknown dataset"),
    ([*TINY, "--option", "n_iters"], "expected section.key=value"),
    (["--test", "--num_samples=0"], "--num_samples is 0, expected at least 1"),
    (["--config", "toy.yml"], "lacks data.dataset, .*which AnnealRunner needs"),
]


@pytest.mark.parametrize(("arguments", "text"), REFUSED, ids=lambda x: None if isinstance(x, list) else x[:24])
def test_refusals(arguments, text, capsys):
    """One message, exit code 2 or 1, no checkpoint begun; the original exited with 0 or a traceback."""
    code = 1 if "--resume_training" in arguments else 2  # a missing checkpoint is no wrong usage
    assert re.search(text, error_of(capsys, *arguments, code=code).replace("\n", " "))
    assert not list(Path().glob("run/logs/*/*.pth"))


def test_bad_seed():
    with pytest.raises(SystemExit) as stopped:
        main(["--seed", "x"])
    assert stopped.value.code == BEHAVIOUR["bad_seed"]["exit_code"]


def checkpoint(doc, name="checkpoint.pth"):
    return read_list_checkpoint(Path("run/logs") / doc / name)


def assert_equal_runs(one, other):
    first, second = checkpoint(one), checkpoint(other)
    assert first.resume == second.resume
    assert all(np.array_equal(first.network[key], second.network[key]) for key in first.network)
    for n, state in first.optimizer["state"].items():
        assert all(np.array_equal(value, second.optimizer["state"][n][key]) for key, value in state.items())


def test_resuming_gives_the_numbers_of_an_uninterrupted_run(capsys):
    assert main([*TINY, "--doc", "whole", "--option=training.n_iters=9"]) == 0
    assert main([*TINY, "--doc", "parts"]) == 0
    text = error_of(capsys, *TINY, "--doc", "parts")
    assert "holds a run already" in text
    assert "--overwrite" in text
    assert main(["--resume_training", "--doc", "parts", "--option=training.n_iters=9"]) == 0
    assert_equal_runs("whole", "parts")
    steps = re.findall(r"step: (\d+), loss", Path("run/logs/parts/stdout.txt").read_text())
    assert steps == ["1", "2", "3", "4", "5", "5", "6", "7", "8", "9"]
    assert "model.ngf: 2 -> 3" in error_of(capsys, "--resume_training", "--doc", "parts", "--option=model.ngf=3")
    assert "started with 1234" in error_of(capsys, "--resume_training", "--doc", "parts", "--seed=5")


def test_only_overwrite_removes_a_run(capsys):
    assert main([*TINY, "--doc", "d"]) == 0
    Path("run/logs/d/mine.txt").write_text("mine")
    error_of(capsys, *TINY, "--doc", "d")
    assert Path("run/logs/d/mine.txt").exists()
    assert main([*TINY, "--doc", "d", "--overwrite"]) == 0
    assert not Path("run/logs/d/mine.txt").exists()


@pytest.mark.parametrize(
    ("runner", "options"),
    [
        ("AnnealRunner", ["training.algo=ssm", "optim.optimizer=RMSProp"]),
        ("AnnealRunner", ["data.logit_transform=true", "optim.optimizer=SGD", "optim.lr=1e-6"]),
        ("BaselineRunner", ["optim.amsgrad=true", "optim.weight_decay=0.01"]),
        ("ScoreNetRunner", ["training.algo=ssm", "training.noise_std=0.01", "model.nef=8", "model.ndf=8"]),
        ("ScoreNetRunner", ["training.algo=dsm", "training.noise_std=0.1", "model.nef=8", "model.ndf=8"]),
    ],
)
def test_every_kind_of_training(runner, options):
    assert main(["--runner", runner, *TINY, "--doc", "k", *[f"--option={o}" for o in options]]) == 0
    keys = list(torch.load("run/logs/k/checkpoint.pth", weights_only=True)[0])
    assert keys[0].startswith("module.") == (runner != "ScoreNetRunner")


def write_run(doc, config, model, prefix="module."):
    """A run as the original leaves it: config.yml with its tags, checkpoint.pth of rule-filled parameters."""
    log = Path("run/logs") / doc
    log.mkdir(parents=True)
    (log / "config.yml").write_text(dump_namespace(to_namespace(config)))
    network = {prefix + key: value for key, value in fill(model).state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters())
    (log / "checkpoint.pth").write_bytes(dumps([network, optimizer.state_dict()]))


def small_config(**data):
    return {
        "data": {"dataset": "MNIST", "image_size": 8, "channels": 1, "logit_transform": False, "random_flip": False}
        | data,
        "model": {"sigma_begin": 1, "sigma_end": 0.01, "num_classes": 2, "ngf": 2},
    }


@pytest.mark.parametrize("kind", ["mnist", "cifar"])
def test_samples_of_a_seed_are_the_originals(kind, capsys):
    """--test --movie with the original's seed, up to the second noise level: raw states and grids."""
    golden = goldens.load("ncsn", "cli_sampling.npz")
    described = BEHAVIOUR[f"test_anneal/{kind}"]
    channels, size = described["config"]["channels"], described["config"]["image_size"]
    config = small_config(image_size=size, channels=channels, dataset=described["config"]["dataset"])
    config["model"]["num_classes"] = 10
    write_run("t", config, networks.CondRefineNetDilated(channels, 2, 10))
    args = parser().parse_args(["--test", "--movie", "--doc", "t", "-o", "out"])
    args.log, args.seed, made = Path("run/logs/t"), described["seed"], to_namespace(config)
    complete(made)

    class StopAfter(GracefulStop):
        """A signal after state 101: the rest would take a minute."""

        @property
        def requested(self):
            return Path("out/image_raw_101.pth").exists()

        def exit(self):
            raise StopRequested(143)

    seed_everything(args.seed)
    with pytest.raises(StopRequested):
        AnnealRunner(args, made, StopAfter()).test()
    for i in (0, 1, 2, 9, 10, 100, 101):
        raw = torch.load(f"out/image_raw_{i}.pth", weights_only=True)
        assert list(raw.shape) == described["raw_shape"]
        assert str(raw.dtype) == described["raw_dtype"]
        np.testing.assert_allclose(raw.mean(), described["raw_mean"][str(i)], rtol=1e-4)
        close(raw[:2], golden[f"test_anneal/{kind}/raw_{i}_first2"], 1e-5 if i < 11 else 1e-3)
    with Image.open("out/image_1.png") as picture:
        grid = np.asarray(picture)
    assert list(grid.shape) == described["png"]["1"]["size"]
    corner = golden[f"test_anneal/{kind}/png_1_corner"].astype(int)
    assert np.abs(grid[:40, :40].astype(int) - corner).max() <= 1  # a value at the border of two greys
    # repaired: every tenth grid of the original was converted to bytes twice; here it is like the others.
    with Image.open("out/image_10.png") as picture:
        assert np.asarray(picture).min() == 0
    assert described["png"]["10"]["min"] == 128


def test_sampling_writes_final_states_and_on_request_a_film():
    write_run("t", small_config(), networks.CondRefineNetDilated(1, 2, 2))
    options = ["--option=sampling.n_steps_each=6", "--num_samples=7"]
    assert main(["--test", "--doc", "t", "-o", "final", *options]) == 0
    assert files("final") == ["samples.png", "samples.pth"]
    samples = torch.load("final/samples.pth", weights_only=True)
    assert samples.shape == (7, 1, 8, 8)
    assert 0 <= samples.min() <= samples.max() <= 1
    assert main(["--test", "--doc", "t", "-o", "film", "--movie", *options]) == 0
    expected = ["movie.gif", "samples.png", "samples.pth"]
    expected += [f"image_{i}.png" for i in range(12)] + [f"image_raw_{i}.pth" for i in range(12)]
    assert files("film") == sorted(expected)
    with Image.open("film/movie.gif") as film:
        assert film.n_frames == 2  # states 0 and 10
        assert film.info["loop"] == 0
    assert torch.equal(torch.load("film/samples.pth", weights_only=True), samples)


def test_diverged_samples_are_not_written(capsys):
    write_run("t", small_config(), networks.CondRefineNetDilated(1, 2, 2))
    huge = "--option=sampling.step_lr=1e38"
    text = error_of(capsys, "--test", "--doc", "t", "-o", "o", huge, "--num_samples=2", code=1)
    assert "the sampler diverged. Lower sampling.step_lr" in text
    assert not Path("o").exists()


def test_baseline_sampling(capsys):
    config = small_config(dataset="FashionMNIST")
    write_run("b", config, networks.RefineNetDilated(1, 2))
    arguments = ["--runner", "BaselineRunner", "--test", "--doc", "b", "-o", "o", "--option=sampling.n_steps=11"]
    assert main(arguments) == 0
    assert files("o") == ["samples.png", "samples.pth"]
    assert torch.load("o/samples.pth", weights_only=True).shape == (100, 1, 8, 8)
    assert (
        sum(line.startswith("modulus of grad components: mean ") for line in capsys.readouterr().out.splitlines()) == 11
    )
    assert main([*arguments, "--movie"]) == 0
    assert files("o") == sorted(["movie.gif", "samples.png", "samples.pth", *[f"samples_{i}.pth" for i in range(11)]])


@pytest.mark.parametrize("mask", ["right", "center", "picture"])
def test_inpainting_any_mask_of_any_size(mask):
    """The known pixels come out as they are, but for the noise of the smallest level."""
    config = small_config(dataset="digits")
    config["model"]["num_classes"] = 10
    write_run("t", config, networks.CondRefineNetDilated(1, 2, 10))
    hidden = np.zeros((8, 8), bool)
    if mask == "picture":
        hidden[2:5, 1:7] = True
        Image.fromarray((hidden * 255).astype(np.uint8)).save("mask.png")
        mask = "mask.png"
    elif mask == "right":
        hidden[:, 4:] = True
    else:
        hidden[2:6, 2:6] = True
    options = ["sampling.n_steps_each=2", "sampling.num_images=3", "sampling.num_completions=4"]
    assert main(["--test", "--doc", "t", "-o", "o", "--mask", mask, *[f"--option={o}" for o in options]]) == 0
    assert files("o") == ["image_completion.png", "image_completion.pth", "refer_image.pth"]
    refer, found = (torch.load(f"o/{name}.pth", weights_only=True) for name in ("refer_image", "image_completion"))
    assert (refer.shape, found.shape) == ((3, 1, 8, 8), (12, 1, 8, 8))
    known = torch.tensor(~hidden)
    difference = (found - refer.repeat_interleave(4, 0)).abs()
    assert difference[:, :, known].max() < 0.06  # five standard deviations of 0.01
    assert difference[:, :, ~known].max() > 0.1


def test_evaluation_chooses_a_checkpoint_and_records_everything(capsys):
    import json

    assert main([*TINY, "--doc", "d"]) == 0
    options = ["evaluation.select_samples=30", "evaluation.num_samples=60", "evaluation.batch_size=20"]
    arguments = ["--fid", "--doc", "d", "-o", "fid", *[f"--option={o}" for o in options]]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    chosen = {int(step): float(fid) for step, fid in re.findall(r"^ckpt: (\d+), fid: ([\d.]+)$", out, re.M)}
    assert chosen.keys() == {2, 4}
    best = min(chosen, key=chosen.__getitem__)
    assert f"ckpt: {best}, fid: " in out.splitlines()[-1]
    assert len(files(f"fid/ckpt_{best}")) == 60
    results = json.loads(Path("run/results.json").read_text())["results"]
    final = [r for r in results if r["protocol"] == "final" and r["metric"] == "fid"]
    assert [(r["sample_count"], r["checkpoint_step"], r["extractor"], r["dataset"]) for r in final] == [
        (60, best, "digits", "digits/train")
    ]
    assert "biased upwards" in final[0]["details"]["warning"]
    assert {r["metric"] for r in results} >= {"fid", "inception_score"}


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ncsn", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_killed_and_resumed(number, status):
    """A run stopped in the middle ends with the numbers of one that was not."""
    long = [*TINY, "--option=training.n_iters=40", "--option=training.snapshot_freq=3"]
    process = start(*long, "--doc", "killed")
    for line in process.stderr:
        if "step: 7," in line:
            process.send_signal(number)
            break
    process.communicate()
    assert process.returncode == status
    assert main(["--resume_training", "--doc", "killed"]) == 0
    assert main([*long, "--doc", "whole"]) == 0
    assert_equal_runs("killed", "whole")


def test_toy_runner_makes_its_folder_and_six_pictures(monkeypatch, caplog):
    from ncsn.runners import toy

    monkeypatch.setattr(toy, "train_toy", lambda teacher, steps, stop=None: toy.ToyMLP())
    monkeypatch.setattr(toy, "langevin_dynamics", lambda score, init, **_: init)
    assert main(["--runner", "ToyRunner", "--config", "toy.yml"]) == 0
    names = ["data", "data_samples", "data_scores", "langevin_data", "langevin_model", "scores"]
    assert files("tmp") == [f"None_{name}.png" for name in names]


def test_the_first_losses_of_the_toy_run():
    """Seed 1234 as the original's whole run, from network to points and projections."""
    from ncsn.runners.toy import train_toy
    from ncsn.toy.distributions import GMMDist

    golden = goldens.load("ncsn", "toy.npz")
    losses = []
    handler = logging.Handler()
    handler.emit = lambda record: losses.append(float(record.getMessage().split("loss: ")[1]))
    logger = logging.getLogger("ncsn.runners.toy")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        seed_everything(1234)
        train_toy(GMMDist(2), 500)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    np.testing.assert_allclose(losses[:50], golden["ToyRunner.train/loss_first50"], rtol=1e-3)
    np.testing.assert_allclose(np.mean(losses), golden["ToyRunner.train/loss_mean_per_500"][0], atol=1e-4)
    np.testing.assert_allclose(losses[0], 0.42240095138549805, rtol=1e-5)


def test_packaged_configurations_are_named_in_the_help():
    text = parser().format_help()
    assert all(re.search(rf"\b{name}\b", text) for name in list_configs())
    for name in list_configs():
        assert isinstance(yaml.safe_load((PACKAGED / f"{name}.yml").read_text()), dict)


def test_a_damaged_latest_checkpoint_falls_back_to_the_one_before():
    assert main([*TINY, "--doc", "d"]) == 0
    file = Path("run/logs/d/checkpoint.pth")
    file.write_bytes(file.read_bytes()[:1000])
    assert main(["--test", "--doc", "d", "-o", "o", "--num_samples=2"]) == 0
    assert files("o") == ["samples.png", "samples.pth"]


def test_sampling_from_a_step_that_is_not_there_lists_those_that_are(capsys):
    assert main([*TINY, "--doc", "d"]) == 0
    text = error_of(capsys, "--test", "--doc", "d", "--ckpt_id=3", code=1)
    assert "checkpoint_2.pth, checkpoint_4.pth, checkpoint.pth" in text
    resume = ResumePoint(3, 1234, "", "")
    save_list_checkpoint("run/logs/d", Path("run/logs/d/checkpoint_2.pth").read_bytes(), resume)
    assert main(["--test", "--doc", "d", "--ckpt_id=3", "-o", "o", "--num_samples=2"]) == 0
