"""``--mode=generate``: every task in both frameworks from one checkpoint, and what is refused."""

import subprocess
import sys

import experiments
import numpy as np
import pytest
from PIL import Image

from score_core.errors import UsageError
from score_core.runs.results import read_results
from score_core.runs.signals import GracefulStop, StopRequested
from score_sde.__main__ import main
from score_sde.classifier.__main__ import main as classifier_main
from score_sde.configs.load import load_config
from score_sde.experiment import get_experiment
from score_sde.generate.inputs import read_images, read_mask
from score_sde.generate.options import Options, options_of
from score_sde.generate.tasks import Session, perform

SHAPE = (8, 8, 3)
FLAGS = experiments.tiny_flags(data__num_channels=3, eval__batch_size=5, sampling__corrector_norm="sample")


def config(**more):
    config = load_config("digits")
    for key, value in (experiments.TINY | {"data.num_channels": 3} | more).items():
        section, name = key.split(".")
        config[section][name] = value
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A work directory with a checkpoint of the PyTorch program (fresh parameters) and a classifier."""
    folder = tmp_path_factory.mktemp("generate") / "run"
    experiment = get_experiment(config(), "torch", local=True)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint_3.pth").write_bytes(experiment.encode_state(experiment.initial_state()))
    flags = ["--config.data.image_size=8", "--config.data.num_channels=3", "--config.model.beta_max=4.0"]
    sizes = ["--blocks_per_group=1", "--channel_multiplier=1", "--batch_size=8", "--n_iters=2"]
    assert classifier_main([f"--workdir={folder}_classifier", "--framework=torch", *flags, *sizes]) == 0
    return folder


def run(workdir, task, *flags, framework="torch", out):
    """The arrays that the command writes."""
    command = [f"--workdir={workdir}", "--mode=generate", f"--task={task}", f"--framework={framework}", f"--out={out}"]
    assert main([*command, *FLAGS, *flags]) == 0
    with Image.open(out / f"{task}.png") as picture:
        assert picture.size[0] > 64
    with np.load(out / f"{task}.npz") as arrays:
        return dict(arrays)


TASKS = {
    "sample": ("--num=7",),
    "inpaint": ("--images=test:0-2", "--num=2", "--mask=random:0.5", "--noise_consistent"),
    "colorize": ("--images=train:4", "--num=2"),
    "class": ("--class=3,1", "--num=3"),
    "encode": ("--images=test:0-2",),
    "interpolate": ("--images=test:0-1", "--num=3"),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_in_both_frameworks_from_one_checkpoint(workdir, tmp_path, task):
    """Seven and six images in batches of five, the last filled up; the same images to a grey level."""
    ours = run(workdir, task, *TASKS[task], out=tmp_path / "torch")
    theirs = run(workdir, task, *TASKS[task], framework="jax", out=tmp_path / "jax")
    assert ours.keys() == theirs.keys()
    for name in ours:
        if name == "recognised":  # a grey level may decide
            continue
        one, other = (arrays[name].astype(np.float64) for arrays in (ours, theirs))
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-3 if name == "z" else 1, err_msg=name)
    images = ours.get("images", ours.get("results", ours.get("decoded")))
    assert images.dtype == np.uint8
    assert images.std() > 1
    assert int(ours["step"]) == 0
    if task == "sample":
        assert images.shape == (7, *SHAPE)
    if task == "inpaint":
        assert images.shape == (3, 2, *SHAPE)
        known = np.broadcast_to(ours["mask"] > 0, ours["original"].shape)
        hidden = ~known
        assert (ours["measurement"][hidden] == 0).all()
        gap = np.abs(images.astype(int) - ours["original"][:, None])
        assert gap[np.broadcast_to(known[:, None], gap.shape)].max() <= 1
        (result,) = read_results(tmp_path / "torch" / "results.json")
        assert result.metric == "inpaint_known_mean_error"
        assert result.value < 1 / 255
    if task == "colorize":
        assert images.shape == (1, 2, *SHAPE)
        assert (ours["measurement"][..., 0] == ours["measurement"][..., 1]).all()
    if task == "class":
        assert images.shape == (6, *SHAPE)
        assert ours["labels"].tolist() == [3, 3, 3, 1, 1, 1]
        (result,) = read_results(tmp_path / "torch" / "results.json")
        assert result.value == np.mean(ours["recognised"] == ours["labels"])
    if task == "encode":
        assert ours["z"].shape == (3, *SHAPE)
        assert np.abs(images.astype(int) - ours["original"]).max() <= 1
    if task == "interpolate":
        assert images.shape == (1, 3, *SHAPE)
        for end, original in ((0, 0), (-1, 1)):
            assert np.abs(images[0, end].astype(int) - ours["original"][original]).max() <= 1


def test_an_image_of_a_seed_does_not_depend_on_how_many_are_drawn(workdir, tmp_path):
    few = run(workdir, "sample", "--num=2", "--seed=4", out=tmp_path / "few")["images"]
    many = run(workdir, "sample", "--num=7", "--seed=4", out=tmp_path / "many")["images"]
    other = run(workdir, "sample", "--num=2", "--seed=5", out=tmp_path / "other")["images"]
    np.testing.assert_array_equal(few, many[:2])
    assert not np.array_equal(few, other)


def test_hidden_pixels_of_a_picture_do_not_matter(workdir, tmp_path):
    """The same file with its hidden half painted over gives the same bytes."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, SHAPE, np.uint8)
    painted = picture.copy()
    painted[:, 4:] = 255
    results = []
    for name, pixels in (("picture", picture), ("painted", painted)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        arrays = run(workdir, "inpaint", f"--images={tmp_path / name}.png", "--num=2", out=tmp_path / name)
        results.append(arrays["results"])
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0][0, 0], results[0][0, 1])


def test_pytorch_alone_is_enough(workdir, tmp_path):
    """Where JAX cannot be imported, a classifier leads the sampler all the same."""
    program = "import sys; sys.modules['jax'] = None; from score_sde.__main__ import main; sys.exit(main(sys.argv[1:]))"
    flags = [f"--workdir={workdir}", "--mode=generate", "--task=class", "--framework=torch", f"--out={tmp_path}"]
    command = [sys.executable, "-c", program, *flags, *FLAGS, "--class=3", "--num=1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "class.npz").exists()


def test_another_request_does_not_replace_the_results_of_the_first(workdir, tmp_path, capsys):
    first = run(workdir, "sample", "--num=2", out=tmp_path)["images"]
    command = [f"--workdir={workdir}", "--mode=generate", "--task=sample", "--framework=torch", f"--out={tmp_path}"]
    assert main([*command, *FLAGS, "--num=3"]) == 2
    assert "request.num: 2 -> 3" in capsys.readouterr().err
    np.testing.assert_array_equal(run(workdir, "sample", "--num=2", out=tmp_path)["images"], first)
    assert len(run(workdir, "sample", "--num=3", "--force", out=tmp_path)["images"]) == 3


def test_a_signal_between_batches_ends_the_task():
    class Generator:
        drawn = 0

        def sample(self, indices):
            self.drawn += 1
            stop.request(15)
            return np.zeros((len(indices), *SHAPE))

    stop, generator = GracefulStop(), Generator()
    session = Session(get_experiment(config(), "torch"), generator, Options("sample", num=200), lambda: None, stop)
    with pytest.raises(StopRequested) as error:
        perform(session)
    assert (error.value.code, generator.drawn) == (143, 1)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--task=paint"], 2, "must be one of sample, inpaint"),
        ([], 2, "needs --task"),
        (["--task=sample", "--num=-1"], 2, "needs at least 1"),
        (["--task=interpolate", "--num=1"], 2, "needs at least 2"),
        (["--task=interpolate", "--images=test:0-2"], 2, "needs pairs of images"),
        (["--task=inpaint", "--images=test:5-9999"], 2, "has the images 0 to 179"),
        (["--task=inpaint", "--images=test:5-4"], 2, "has the images 0 to 179"),
        (["--task=inpaint", "--images=nowhere.png"], 2, "neither a file, nor a folder"),
        (["--task=inpaint", "--mask=upper"], 2, "neither a file nor one of left, right"),
        (["--task=inpaint", "--mask=random:2"], 2, "probability of hiding a pixel"),
        (["--task=class", "--class=10"], 2, "knows the classes 0 to 9"),
        (["--task=class", "--guidance=-1"], 2, "--guidance=-1"),
        (["--task=class", "--guidance=inf"], 2, "--guidance=inf"),
        (["--task=class", "--class=cat"], 2, "numbers with commas"),
        (["--task=class", "--classifier_workdir=nowhere"], 1, "no classifier nowhere"),
        (["--task=class", "--config.model.beta_max=4.5"], 2, "trained for another experiment"),
        (["--task=sample", "--checkpoint=9"], 1, "Present in"),
        (["--task=sample", "--checkpoint=nowhere.pth"], 1, "no checkpoint nowhere.pth"),
        (["--task=sample", "--config.model.nf=16"], 1, "does not fit"),
        (["--task=inpaint", "--config.sampling.predictor=ddim"], 2, "cannot inpaint or colourise"),
        (["--task=sample", "--seed=-1"], 2, "--seed=-1"),
        (["--task=sample", "--num=two"], 1, "num"),
    ],
)
def test_a_request_that_makes_no_sense(workdir, tmp_path, capsys, flags, status, message):
    command = [f"--workdir={workdir}", "--mode=generate", "--framework=torch", f"--out={tmp_path / 'out'}"]
    assert main([*command, *FLAGS, *flags]) == status
    assert message in capsys.readouterr().err
    assert not list((tmp_path).glob("out/*.npz"))


def test_without_a_checkpoint_or_without_colours(workdir, tmp_path, capsys):
    command = ["--mode=generate", "--framework=torch", "--task=sample", *FLAGS]
    assert main([*command, f"--workdir={tmp_path / 'nothing'}"]) == 2
    assert "train first" in capsys.readouterr().err
    assert main([*command, f"--workdir={tmp_path}"]) == 1
    assert "no checkpoint in" in capsys.readouterr().err
    gray = get_experiment(config(**{"data.num_channels": 1}), "torch")
    session = Session(gray, None, Options("colorize"), lambda: None, GracefulStop())  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="needs a model of 3 channels"):
        perform(session)


def test_masks_by_name():
    for what, hidden in {
        "left": np.s_[:, :4],
        "right": np.s_[:, 4:],
        "top": np.s_[:4],
        "bottom": np.s_[4:],
        "center": np.s_[2:6, 2:6],
    }.items():
        expected = np.ones((8, 8, 1))
        expected[hidden] = 0
        np.testing.assert_array_equal(read_mask(what, 2, SHAPE, 0), [expected, expected])
    random = read_mask("random:0.25", 200, SHAPE, 1)
    assert abs((random == 0).mean() - 0.25) < 0.02
    assert not np.array_equal(random[0], random[1])
    np.testing.assert_array_equal(random, read_mask("random:0.25", 200, SHAPE, 1))
    assert (read_mask("random:0", 1, SHAPE, 1) == 1).all()
    assert (read_mask("random:1", 1, SHAPE, 1) == 0).all()


def test_masks_of_files(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (8, 8), np.uint8)
    Image.fromarray(mask * 255).save(tmp_path / "bytes.png")
    Image.fromarray(mask > 0).save(tmp_path / "bits.png")
    np.save(tmp_path / "flat.npy", mask)
    channels = np.stack([mask, 1 - mask, mask], axis=-1)
    np.save(tmp_path / "channels.npy", channels)
    for name in ("bytes.png", "bits.png", "flat.npy"):
        found = read_mask(str(tmp_path / name), 2, SHAPE, 0)
        np.testing.assert_array_equal(
            np.broadcast_to(found, (2, *SHAPE)), np.broadcast_to(mask[..., None], (2, *SHAPE))
        )
    np.testing.assert_array_equal(read_mask(str(tmp_path / "channels.npy"), 2, SHAPE, 0), [channels, channels])

    Image.fromarray(mask * 128).save(tmp_path / "gray.png")
    Image.fromarray(mask[:4] * 255).save(tmp_path / "small.png")
    np.save(tmp_path / "pair.npy", channels[..., :2])
    np.save(tmp_path / "object.npy", np.array([None]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, message in {
        "gray.png": "mask > 0.5",
        "small.png": r"shape \(4, 8, 1\); the images are 8 by 8 pixels",
        "pair.npy": r"shape \(8, 8, 2\)",
        "object.npy": "cannot be read",
        "text.npy": "cannot be read",
    }.items():
        with pytest.raises(UsageError, match=message):
            read_mask(str(tmp_path / name), 1, SHAPE, 0)


def test_images_of_files_and_folders(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, *SHAPE), np.uint8)
    for number, picture in zip((10, 2, 1), pictures, strict=True):
        Image.fromarray(picture).save(tmp_path / f"img{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    source = get_experiment(config(), "torch").source
    np.testing.assert_array_equal(read_images(str(tmp_path), source, SHAPE), pictures[::-1])  # img2 before img10
    np.testing.assert_array_equal(read_images(str(tmp_path / "img2.png"), source, SHAPE), pictures[1:2])
    Image.fromarray(np.full((20, 31, 3), 77, np.uint8)).save(tmp_path / "large.jpg", quality=100)
    large = read_images(str(tmp_path / "large.jpg"), source, (8, 8, 1))
    assert large.shape == (1, 8, 8, 1)
    assert np.abs(large.astype(int) - 77).max() <= 1
    for what, numbers in {"train:5": [5], "train:5,0-2,1": [5, 0, 1, 2, 1]}.items():
        expected = source("train").fetch(np.array(numbers))[0]
        np.testing.assert_array_equal(read_images(what, source, SHAPE), expected)
    with pytest.raises(UsageError, match="has the images 0 to 1616"):
        read_images("train:5,1617", source, SHAPE)


def test_flags_and_options_agree():
    """Defaults of the flags are those of the options."""
    from absl import flags

    from score_sde.generate.options import define_flags

    values = flags.FlagValues()
    define_flags(values)
    values(["program", "--task=class"])
    assert options_of(values) == Options("class")
    assert Options("class").chosen_classes(3) == [0, 1, 2]
