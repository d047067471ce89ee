"""A Slurm cluster of one node on this machine's loopback, for tests: munged, slurmctld and slurmd started by hand.

    with OneNodeSlurm() as cluster:
        subprocess.run(["sbatch", ...], env=cluster.environment)

Everything is in one temporary folder and gone afterwards. Needs root and the packages slurm-wlm and munge, which
``install`` fetches where it may.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
_CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=5
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def install() -> str | None:
    """Makes sure that Slurm can be started here; returns why not, or None."""
    if os.geteuid() != 0:
        return "starting slurmctld and slurmd needs root"
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if not missing:
        return None
    if shutil.which("apt-get") is None:
        return f"{', '.join(missing)} are missing, and there is no apt-get to install them"
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        result = subprocess.run(
            ["apt-get", "--quiet", *command], capture_output=True, text=True, env=quiet, check=False
        )
        if result.returncode:
            return f"apt-get {command[0]} failed: {result.stderr.strip()[-300:]}"
    return None


class OneNodeSlurm:
    """The cluster, as a context manager.

    Attributes:
        environment: variables with which Slurm's programs find it.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 107 characters at most
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        self._daemons = []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if len(self._daemons) == 3:
            with contextlib.suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
                for job in self.jobs():
                    self.cancel(job)
                deadline = time.monotonic() + 15
                while self.jobs() and time.monotonic() < deadline:
                    time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process_id in self._left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self) -> list[int]:
        """What jobs left behind: the processes that were started with this cluster's variables."""
        mark = str(self.folder).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def jobs(self, state: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
        """The ids of the batch jobs in some states."""
        return self._call("squeue", "--noheader", "--format=%i", f"--states={state}").split()

    def cancel(self, job: str):
        """Ends a batch job, all its processes included."""
        self._call("scancel", "--full", job)

    def _call(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=20
        ).stdout

    def _start(self):
        for name in ("munge", "state", "spool", "bin"):
            (self.folder / name).mkdir(mode=0o755)
        self.folder.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        values = {"folder": self.folder, "host": socket.gethostname().split(".")[0]}
        values |= dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
        (self.folder / "slurm.conf").write_text(_CONF.format(**values))
        # Snakemake's plug-in removes Slurm's variables inside jobs, where srun still needs the place of this file.
        wrapper = self.folder / "bin" / "srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        wrapper.chmod(0o755)
        munge = self.folder / "munge"
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            "--num-threads=2",
            f"--key-file={key}",
            f"--socket={munge / 'socket'}",
            f"--pid-file={munge / 'pid'}",
            f"--seed-file={munge / 'seed'}",
        )
        _await((munge / "socket").exists, "munged", self.folder / "munged.out")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        _await(self._idle, "the node", self.folder / "slurmctld.log", self.folder / "slurmd.log")

    def _daemon(self, *command: str):
        with open(self.folder / f"{command[0]}.out", "wb") as log:
            self._daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _idle(self) -> bool:
        try:
            return self._call("sinfo", "--noheader", "--format=%T").strip() == "idle"
        except subprocess.SubprocessError:
            return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _await(condition, what, *logs):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            told = "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.exists())
            raise AssertionError(f"{what} did not come up:\n{told}")
        time.sleep(0.1)
