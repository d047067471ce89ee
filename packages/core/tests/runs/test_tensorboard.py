"""Event files, read back by TensorBoard's own reader."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from score_core.errors import UserError
from score_core.runs.tensorboard import SummaryWriter


def read(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_scalars_are_read_back(tmp_path):
    with SummaryWriter(tmp_path / "tensorboard") as writer:
        writer.scalar("training_loss", 90.5, 0)
        writer.scalars({"training_loss": 80.25, "eval_loss": 95}, 50)
    assert scalars(tmp_path / "tensorboard", "training_loss") == [(0, 90.5), (50, 80.25)]
    assert scalars(tmp_path / "tensorboard", "eval_loss") == [(50, 95.0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_read_back_exactly(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.image("samples", image, 3)
    (event,) = read(tmp_path).Images("samples")
    assert (event.step, event.height, event.width) == (3, 5, 7)
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    np.testing.assert_array_equal(pixels.reshape(image.shape), image)


@pytest.mark.parametrize("image", [np.zeros((5, 7, 3)), np.zeros((5, 7), np.uint8), np.zeros((5, 7, 4), np.uint8)])
def test_other_arrays_are_no_pictures(tmp_path, image):
    with SummaryWriter(tmp_path) as writer, pytest.raises(ValueError, match="an image is uint8"):
        writer.image("samples", image, 3)


def test_events_are_on_disk_before_closing(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.scalar("loss", 1.0, 1)
    assert scalars(tmp_path, "loss") == [(1, 1.0)]
    writer.close()


def test_a_resumed_run_replaces_the_steps_it_does_again(tmp_path):
    for start, end, value in [(0, 10, 1.0), (6, 12, 2.0), (8, 14, 3.0)]:
        with SummaryWriter(tmp_path, purge_step=start or None) as writer:
            for step in range(start, end):
                writer.scalar("loss", value, step)
    assert len(list(tmp_path.iterdir())) == 3
    expected = [(step, 1.0) for step in range(6)] + [(6, 2.0), (7, 2.0)] + [(step, 3.0) for step in range(8, 14)]
    assert scalars(tmp_path, "loss") == expected


def test_files_of_starts_within_one_second_are_read_in_the_order_of_the_starts(tmp_path):
    paths = []
    for _ in range(3):
        with SummaryWriter(tmp_path) as writer:
            paths.append(writer.path)
    assert sorted(tmp_path.iterdir()) == paths


def test_neither_tensorflow_nor_a_framework_is_imported(tmp_path):
    code = (
        "import sys; from score_core.runs.tensorboard import SummaryWriter\n"
        "with SummaryWriter(sys.argv[1]) as writer: writer.scalar('loss', 1.0, 1)\n"
        "print([name for name in ('tensorflow', 'torch', 'jax', 'tensorboard.compat.tf') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write TensorBoard events"):
        SummaryWriter(tmp_path / "file" / "tensorboard")
