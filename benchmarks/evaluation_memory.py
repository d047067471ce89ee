"""Peak host memory of sampling and scoring N and 8 N images with a tiny network: what grows is the features alone.

python benchmarks/evaluation_memory.py [N]       default 2000

An untrained network will do. Each evaluation is a process of its own; its peak is the one in its results.json.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from score_core.runs.results import read_results

_NETWORK = [
    "--config=digits",
    "--config.model.nf=8",
    "--config.model.ch_mult=(1,)",
    "--config.model.attn_resolutions=()",
    "--config.model.num_scales=2",
    "--config.training.n_iters=1",
    "--config.training.snapshot_freq=1",
    "--config.training.snapshot_sampling=False",
    "--config.eval.enable_loss=False",
    "--config.eval.enable_bpd=False",
    "--config.eval.trajectory=False",
    "--config.eval.batch_size=200",
]


def peak_bytes(workdir: Path, num_samples: int) -> int:
    """Peak resident size of the process that evaluates ``num_samples`` images."""
    folder = workdir / str(num_samples)
    _run(folder)
    _run(folder, "--mode=eval", f"--config.eval.num_samples={num_samples}")
    return max(result.peak_memory_bytes for result in read_results(folder / "results.json"))


def _run(folder: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "score_sde", f"--workdir={folder}", *_NETWORK, *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        # Compiling takes more memory than the samples do: once unmeasured, so that both find the compiled programs.
        peak_bytes(Path(folder, "warm-up"), count)
        peaks = {n: peak_bytes(Path(folder), n) for n in (count, 8 * count)}
    for n, peak in peaks.items():
        print(f"{n} samples: peak {peak / 2**20:.0f} MiB")
    growth = (peaks[8 * count] - peaks[count]) / (7 * count)
    print(f"growth: {growth:.0f} bytes a sample")


if __name__ == "__main__":
    main()
