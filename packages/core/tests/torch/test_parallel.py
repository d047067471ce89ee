"""Several processes are one: training and sampling, spread over two real ones."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from score_core.correctors import get_corrector
from score_core.errors import UserError
from score_core.predictors import get_predictor
from score_core.sdes import VPSDE
from score_core.torch.noise import PerSampleNoise
from score_core.torch.parallel import Parallel
from score_core.torch.sampling import get_pc_sampler
from score_core.torch.threefry import prng_key
from score_core.torch.training import Adam, create_state, get_apply_fn, get_loss_fn, get_train_call

IMAGES = np.random.default_rng(0).random((3, 4, 3, 4, 4), np.float32)  # [n, B, C, H, W]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x, labels):
        return self.last(torch.tanh(self.first(x) + 0.001 * labels.reshape(-1, 1, 1, 1)))


def run_process(folder):
    """What each process of the test below does; also called by the test itself, alone."""
    parallel = Parallel(device="cpu")
    torch.manual_seed(parallel.process_index)  # process 0's parameters become everybody's
    net = Tiny()
    model = parallel.wrap(net)
    adam = Adam(beta1=0.9, eps=1e-8, warmup=2, grad_clip=1.0, weight_decay=0.0)
    state = create_state(net, prng_key(5), adam=adam, lr=1e-2, ema_rate=0.99)
    loss_fn = get_loss_fn(VPSDE(), get_apply_fn(model), continuous=True, reduce_mean=True)
    call = get_train_call(loss_fn, adam, lambda images, key, first: images, parallel=parallel, accumulate=2)
    part = parallel.shard_range(4).long()
    state, losses = call(state, parallel.shard(IMAGES[:, part]))

    sampler = get_pc_sampler(
        VPSDE(N=5, beta_max=4.0),
        get_apply_fn(model),
        get_predictor("reverse_diffusion"),
        get_corrector("langevin"),
        snr=0.1,
        batch_mean=parallel.batch_mean,
    )
    noise = PerSampleNoise(prng_key(2), parallel.shard_range(4), (3, 4, 4))
    images = parallel.gather(sampler(state.params_ema, noise).images)
    parallel.require_equal(state.step, "their steps")
    if parallel.process_count > 1:
        with pytest.raises(UserError, match="differ in their rank"):
            parallel.require_equal(parallel.process_index, "their rank")
    assert parallel.maximum(parallel.process_index) == parallel.process_count - 1
    if parallel.leader:
        arrays = {name: value.numpy() for name, value in state.params_ema.items()}
        np.savez(Path(folder) / f"{parallel.process_count}.npz", images=images, losses=losses, **arrays)
    parallel.close()


def test_two_processes_are_one(tmp_path):
    """Losses, averages and samples with batch-averaged Langevin norms, to float32 rounding of the sums' order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('mine', sys.argv[1]); "
        "mine = importlib.util.module_from_spec(spec); spec.loader.exec_module(mine); mine.run_process(sys.argv[2])"
    )
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, __file__, str(tmp_path)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
    run_process(tmp_path)
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "2.npz") as two:
        assert set(one) == set(two) >= {"images", "losses", "first.weight"}
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=2e-6 * np.abs(one[name]).max(), err_msg=name)


def test_one_process_describes_itself_and_checks_the_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    alone = Parallel(local=True, device="cpu")
    assert alone.leader
    assert alone.describe() == {"platform": "cpu", "kind": "cpu", "count": 1, "processes": 1}
    alone.process_count, alone.process_index = 3, 1
    assert alone.shard_range(9).tolist() == [3, 4, 5]
    with pytest.raises(UserError, match=r"eval\.batch_size is 10, which cannot be shared by 3 devices"):
        alone.require_divisible(10, "eval.batch_size")
