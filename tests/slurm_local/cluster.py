"""Start and stop a private Slurm as root: munged, slurmctld, and one slurmd for each node, from Debian's packages.

Each node has a UTS and a mount namespace of its own, so that its host name and /etc/hosts are those of a node. They
share 127.0.0.1, and so all ports: stricter than a real cluster. By hand:

    python -m tests.slurm_local.cluster FOLDER     # until interrupted; then `. FOLDER/env.sh` elsewhere
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm_local.config import Shape, gres_conf, hosts, slurm_conf

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
START_S = 60.0


def install() -> None:
    """Debian's packages; under a lock, because test workers are several. policy-rc.d keeps daemons from starting."""
    with (Path(tempfile.gettempdir()) / "ornith-tests-install.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(shutil.which(program) for program in ("slurmctld", "slurmd", "sbatch", "munged")):
            return
        policy = Path("/usr/sbin/policy-rc.d")
        mine = not policy.exists()
        if mine:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
                subprocess.run(["apt-get", "-qq", *words], check=True, timeout=600, env=environment)
        finally:
            if mine:
                policy.unlink()


@dataclass
class Cluster:
    folder: Path
    shape: Shape = field(default_factory=Shape)
    daemons: list[subprocess.Popen] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "etc/slurm.conf")}

    def run(self, *command: object, check: bool = True) -> str:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=60, env={**os.environ, **self.environment}
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self) -> None:
        self._write()
        self._spawn(
            "munged",
            *("/usr/sbin/munged", "--foreground", "--force", "--num-threads=2"),
            *(f"--{name}={self.folder}/{path}" for name, path in MUNGE.items()),
        )
        _until(lambda: (self.folder / "run/munge.sock").exists(), "munged")
        self._spawn("slurmctld", self.folder / "bin/slurmctld", "-D", "-i")
        # A slurmd that finds no controller sleeps for long before it tries again.
        _until(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld")
        for node in range(self.shape.nodes):
            inside = 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"'
            self._spawn(
                f"slurmd.n{node}",
                *("unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", inside),
                *(f"n{node}", self.folder / "etc/hosts"),
                *(self.folder / "bin/slurmd", "-D", "-N", f"n{node}", "-d", self.folder / "bin/slurmstepd"),
            )
        _until(lambda: self._idle() == self.shape.nodes, "the nodes")

    def stop(self) -> None:
        """Cancel all jobs, then end exactly the processes that were started."""
        jobs = self.run("squeue", "-h", "-a", "-o", "%A", check=False).split()
        for how in (["--full", "-s", "KILL"], []):
            if jobs:
                self.run("scancel", *how, *jobs, check=False)
        deadline = time.monotonic() + 15
        while self.run("squeue", "-h", "-a", "-t", "R,CG,S", check=False) and time.monotonic() < deadline:
            time.sleep(0.25)
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _idle(self) -> int:
        assert all(daemon.poll() is None for daemon in self.daemons), f"a daemon died; see {self.folder}/log"
        return len(self.run("sinfo", "-h", "-N", "-p", "batch", "-t", "idle", "-o", "%N", check=False).split())

    def _write(self) -> None:
        for name in ("run", "spool", "state", "log", "etc", "dev", "bin"):
            (self.folder / name).mkdir(parents=True)
        for node in range(self.shape.nodes):
            (self.folder / f"spool/n{node}").mkdir()
        for gpu in range(self.shape.gpus):
            os.mknod(self.folder / f"dev/gpu{gpu}", 0o666 | 0o020000, os.makedev(1, 3))
        # Slurm knows by argv[0] which daemon it is: by Debian's own names it loses all accelerators without an error.
        for daemon in ("slurmctld", "slurmd", "slurmstepd"):
            found = next(p for p in (f"/usr/sbin/{daemon}-wlm", f"/usr/sbin/{daemon}") if os.path.exists(p))
            (self.folder / "bin" / daemon).symlink_to(found)
        plugins = next(Path("/usr/lib").glob("*/slurm-wlm"))
        etc, host = self.folder / "etc", socket.gethostname().partition(".")[0]
        (etc / "slurm.conf").write_text(slurm_conf(self.folder, self.shape, plugins, host, getpass.getuser()))
        (etc / "gres.conf").write_text(gres_conf(self.folder, self.shape))
        (etc / "hosts").write_text(hosts(self.shape, host))
        # From 24.05 on it insists on control groups unless told not to; before, it does not know the word.
        version = float(subprocess.check_output([self.folder / "bin/slurmd", "-V"], text=True).split()[1][:5])
        (etc / "cgroup.conf").write_text("CgroupPlugin=disabled\n" if version > 24.04 else "")
        (etc / "munge.key").write_bytes(os.urandom(1024))
        (etc / "munge.key").chmod(0o600)
        (self.folder / "env.sh").write_text(f"export SLURM_CONF={etc}/slurm.conf\n")

    def _spawn(self, name: str, *command: object) -> None:
        with (self.folder / f"log/{name}.out").open("wb") as log:
            self.daemons.append(
                subprocess.Popen(
                    list(map(str, command)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            )


MUNGE = {
    "key-file": "etc/munge.key",
    "socket": "run/munge.sock",
    "pid-file": "run/munged.pid",
    "log-file": "log/munged.log",
    "seed-file": "run/munged.seed",
}


@contextmanager
def running(folder: Path, shape: Shape | None = None):
    install()
    cluster = Cluster(folder, shape or Shape())
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _until(ready, what: str) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not come up in {START_S:.0f} s"
        time.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    with running(parser.parse_args().folder.absolute()) as started:
        print(f"up: {started.shape}; source {started.folder}/env.sh", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")
