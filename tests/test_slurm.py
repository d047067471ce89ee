"""ci/Snakefile on a real Slurm of one node: workers are killed midway, and the result is that of an undisturbed run."""

import os
import re
import signal
import time
from pathlib import Path

import one_node_slurm
import pytest
import snakemake_runs

from score_core.runs.results import read_results

# A published cell, in the framework that has nothing to compile; 10 rounds of samples at smoke scale.
ROW = "score_sde/table1/ve/ancestral_sampling/P1000/fid"
RUN = Path("runs", f"{ROW}-torch-smoke")
CONFIG = ("scale=smoke", "shards=2", "framework=torch")
SLURM = (
    "--slurm-no-account",
    "--slurm-init-seconds-before-status-checks=2",
    "--seconds-between-status-checks=2",
    "--latency-wait=10",
    # Each batch job starts snakemake anew, so the two that wait for nothing share one.
    *("--groups", "metrics=scoring", "verdict=scoring", "statistics=preparing", "stage=preparing"),
    *("--group-components", "preparing=2"),
)


def numbers(folder):
    return [
        (r.metric, r.value, r.standard_error, r.sample_count, r.checkpoint_sha256, r.config_hash, r.statistics_sha256)
        for r in read_results(folder / RUN / "results.json")
    ]


def arrays(folder):
    """Contents of everything that was computed: checkpoints, samples, features, statistics, losses, bits/dim."""
    run = folder / RUN
    files = [*run.glob("checkpoints/*"), *run.rglob("*.npz"), *run.rglob("*.np"), *run.glob("eval/*.png")]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


def await_(condition, process, log, what):
    deadline = time.monotonic() + 400
    while not (found := condition()):
        assert process.poll() is None, f"{what} did not come:\n{log.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"{what} did not come:\n{log.read_text()[-4000:]}"
        time.sleep(0.002)
    return found


def worker(folder, index):
    """The process id of a shard's program, or None."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            where = (entry / "cwd").resolve()
        except OSError:
            continue
        wanted = ["score_sde", "--part=rounds", f"--process_id={index}"]
        if where == folder.resolve() and all(argument in arguments for argument in wanted):
            return int(entry.name)
    return None


def rounds_of(folder, index):
    """How many of its rounds of samples a shard has drawn."""
    files = (folder / RUN / "eval").rglob("samples_*.npz")
    return sum(int(file.stem.partition("_")[2]) % 2 == index for file in files)


def attempts(folder, index):
    log = (folder / RUN / f"jobs/shard/eval-shard-{index}.log").read_text()
    return len(re.findall(f"^repro: eval-shard-{index}: ", log, re.MULTILINE))


def batch_job_of(process_id):
    """The number of the Slurm job that a process belongs to."""
    variables = Path(f"/proc/{process_id}/environ").read_bytes().decode(errors="replace").split("\0")
    return next(v.partition("=")[2] for v in variables if v.startswith("SLURM_JOB_ID="))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_row_on_slurm_whose_workers_are_killed_gives_what_an_undisturbed_run_gives(tmp_path):
    if reason := one_node_slurm.install():
        pytest.skip(f"no Slurm here: {reason}")
    disturbed, undisturbed = tmp_path / "slurm", tmp_path / "local"
    for folder in (disturbed, undisturbed):
        folder.mkdir()
    log = tmp_path / "slurm.log"
    with one_node_slurm.OneNodeSlurm() as cluster:
        options = {"config": CONFIG, "environment": cluster.environment, "log": log}
        with snakemake_runs.started("slurm", disturbed, ROW, *SLURM, **options) as process:
            # A node is taken away: the whole batch job of a shard is cancelled.
            cluster.cancel(batch_job_of(await_(lambda: worker(disturbed, 0), process, log, "shard 0")))
            # A worker dies: its program is killed after a round, before the last.
            program = await_(lambda: worker(disturbed, 1), process, log, "shard 1")
            await_(lambda: rounds_of(disturbed, 1), process, log, "a round of shard 1")
            os.kill(program, signal.SIGKILL)
            done = rounds_of(disturbed, 1)
            assert process.wait(500) == 0, log.read_text()[-6000:]
        assert len(cluster.jobs("COMPLETED")) >= 4
        assert len(cluster.jobs("CANCELLED")) == 1
    snakemake_runs.run("local", undisturbed, ROW, config=CONFIG)

    assert 1 <= done < rounds_of(undisturbed, 1), "killed when everything was done, which proves nothing"
    assert attempts(disturbed, 0) == attempts(disturbed, 1) == 2
    assert attempts(undisturbed, 0) == attempts(undisturbed, 1) == 1
    expected = arrays(undisturbed)
    assert [rounds_of(undisturbed, index) for index in (0, 1)] == [5, 5]
    assert arrays(disturbed) == expected
    assert numbers(disturbed) == numbers(undisturbed)
