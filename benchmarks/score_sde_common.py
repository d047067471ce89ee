"""What the two speed scripts of score_sde share: networks, workers that take turns, the table.

Every (network, part, variant) is a process of its own, so that its peak memory is its own. The variants of a part take
turns, one call each, so that what else the machine does hits all of them; of each the fastest call counts, and ratios
are ratios of these minima.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = {
    "train": "one update: loss, gradient, Adam, moving average",
    "sampler": "one noise level of reverse diffusion with one Langevin step: two evaluations",
    "likelihood": "drift of the probability-flow ODE and its vector-Jacobian product",
}
NETWORKS: dict[str, tuple[dict[str, Any], int, int]] = {
    "tiny": ({"nf": 16, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (8,)}, 16, 16),
    "nf32": ({"nf": 32}, 32, 16),
    "nf64": ({"nf": 64}, 32, 16),
}
"""Options beside the published CIFAR-10 NCSN++ (VE), image size and batch size."""

Build = Callable[[str, str, str], tuple[Callable[[], Any], dict[str, Any]]]
"""``build(network, part, variant) -> (call, facts)``: one call is one unit of the part and waits for its end."""


def work(build: Build, network: str, part: str, variant: str) -> None:
    """A worker: a call for every line on the standard input, its seconds on the standard output, facts at the end."""
    start = time.perf_counter()
    call, facts = build(network, part, variant)
    call()
    begun = time.perf_counter() - start
    call()  # JAX may compile again for what the first call returned
    print(json.dumps({"first": begun}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        start = time.perf_counter()
        call()
        print(json.dumps(time.perf_counter() - start), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, **facts}), flush=True)


class Worker:
    """The other end of :func:`work`, of the script that is running."""

    def __init__(self, network: str, part: str, variant: str) -> None:
        command = [sys.executable, sys.argv[0], "--worker", network, part, variant]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first: float = self._read()["first"]
        self.seconds: list[float] = []

    def _read(self) -> Any:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"a worker ended early (status {self.process.wait()}); its message is above")
        return json.loads(line)

    def _write(self, text: str) -> None:
        assert self.process.stdin is not None  # a pipe
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def turn(self) -> None:
        """One call."""
        self._write("")
        self.seconds.append(self._read())

    def end(self) -> dict[str, Any]:
        """Stop it; its facts."""
        self._write("end")
        facts = self._read()
        self.process.wait()
        return facts


def machine() -> str:
    """The processor, its cores and what of it matters to matrix products."""
    name = platform.processor() or platform.machine()
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = set(value.split()) if key.strip() == "flags" else flags
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores ({', '.join(known)}), load {load:.1f}, Python {platform.python_version()}"


def main(build: Build, variants: tuple[str, ...], limits: Callable[[], str], description: str) -> None:
    """The command: as a worker, or over all networks and parts with a table.

    Arguments:
        build: see ``Build``.
        variants: the first is the plain formulation, which ratios refer to.
        limits: what the machine can do, measured.
        description: of the script.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    quick = [variant for variant in variants if not variant.endswith("_compiled")]
    parser.add_argument("--variants", nargs="+", choices=variants, default=quick)
    parser.add_argument("--calls", type=int, default=4, help="timed calls of each variant")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(build, *options.worker)
        return
    start = time.perf_counter()
    print(f"{machine()}\n{limits()}\n", flush=True)
    print("| network | part | variant | ms | against plain | GFLOP/s | peak MB | first call, s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for network in options.networks:
        for part in options.parts:
            workers = {variant: Worker(network, part, variant) for variant in options.variants}
            for _ in range(options.calls):
                for worker in workers.values():
                    worker.turn()
            reference = min(next(iter(workers.values())).seconds)
            gflop = 0.0
            for variant, worker in workers.items():
                best, facts = min(worker.seconds), worker.end()
                gflop = facts.get("gflop", gflop)  # the plain one's holds for all
                rate = f"{gflop / best:.0f}" if gflop else ""
                print(
                    f"| {network} | {part} | {variant} | {1e3 * best:.1f} | {reference / best:.2f} | {rate} | "
                    f"{facts['peak']:.0f} | {worker.first:.1f} |",
                    flush=True,
                )
    print(f"\n{time.perf_counter() - start:.0f} s altogether")
