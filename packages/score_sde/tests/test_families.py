"""One configuration of every model family, in small on the embedded digits: trained, resumed, evaluated."""

import experiments
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.runs.results import read_results
from score_sde.__main__ import main

SMALL = {
    "data.dataset": "digits",
    "data.num_channels": 1,
    "data.image_size": 8,
    "model.nf": 8,
    "model.num_scales": 5,
    "training.batch_size": 8,
    "training.n_jitted_steps": 2,
    "training.log_freq": 2,
    "training.eval_freq": 4,
    "training.snapshot_freq": 4,
    "training.snapshot_freq_for_preemption": 4,
    "training.snapshot_sampling": False,
    "eval.enable_sampling": True,
    "eval.enable_loss": True,
    "eval.extractor": "digits",
    "eval.begin_ckpt": 1,
    "eval.end_ckpt": 2,
    "eval.batch_size": 60,
    "eval.num_samples": 60,
    "eval.trajectory": False,
}
BLOCKS = {"model.ch_mult": (1, 2), "model.num_res_blocks": 1, "model.attn_resolutions": (4,)}
VP = {"model.beta_max": 4.0}  # five steps are then fine enough

# A name of a family's configuration, and what else makes it small.
FAMILIES = {
    "vp/ddpm/cifar10": BLOCKS | VP | {"model.nf": 32},  # its normalisation has 32 groups
    "vp/cifar10_ddpmpp": BLOCKS | VP,
    "vp/cifar10_ncsnpp_continuous": BLOCKS | VP,
    "subvp/cifar10_ddpmpp_continuous": BLOCKS | VP,
    "ve/cifar10_ddpm": BLOCKS | {"model.nf": 32},
    "ve/cifar10_ncsnpp_continuous": BLOCKS,
    "ve/ffhq_ncsnpp_continuous": BLOCKS,  # 1024 px: a stand-alone file, with defects that are repaired
    "ve/ncsn/celeba": {"sampling.n_steps_each": 1},  # with a defect that is repaired
    "ve/ncsnv2/bedroom": {"sampling.n_steps_each": 1},  # likewise
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_resumes_and_is_evaluated(name, tmp_path):
    settings = SMALL | FAMILIES[name]
    workdir = tmp_path / "run"

    def run(mode, n_iters):
        flags = experiments.flags(settings | {"training.n_iters": n_iters})
        return main([f"--config={name}", f"--workdir={workdir}", f"--mode={mode}", *flags])

    assert run("train", 4) == 0
    assert run("train", 8) == 0
    log = (workdir / "stdout.txt").read_text()
    assert "Starting training loop at step 0." in log and "Starting training loop at step 6." in log
    state = msgpack_format.loads((workdir / "checkpoints" / "checkpoint_2").read_bytes())
    assert state["step"] == 10
    assert run("eval", 8) == 0
    results = [(r.checkpoint_step, r.metric) for r in read_results(workdir / "results.json")]
    assert {(step, metric) for step in (6, 10) for metric in ("loss", "fid", "inception_score")} <= set(results)
    samples = np.load(workdir / "eval" / "ckpt_2_host_0" / "samples_0.npz")["samples"]
    assert samples.shape == (60, 8, 8, 1) and samples.std() > 0
