"""Checks of one node, each by itself and each tried for real, with its mend. No jax in this process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.sandbox.doctor import examine
from rollout.ports import in_use

DEVICES_S = 90
SLOW_S = 0.5  # of writing, syncing and renaming one small file
SCRATCH_GB = 20
SHARED_GB = 50
GB = 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    check: str
    ok: bool
    said: str
    mend: str = ""


def check_devices(inside: Sequence[str], platform: str, count: int) -> tuple[Finding, dict[str, str]]:
    """What jax sees, started as the role will be (`inside` its container); and the versions there.

    Args:
        platform: cpu, or gpu for whatever accelerator is there.
        count: at least so many.
    """
    mend = {
        "cpu": "is ornith-jax installed for the site's `python`, on the shared file system?",
        "gpu": "does nvidia-smi show the devices in the same job? Is jax of the driver's CUDA, apptainer called with "
        "--nv, and are the site's `gpus` the words that this Slurm understands?",
    }[platform]
    command = [*inside, "-m", "ornith_jax.slurm.facts", "--devices"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEVICES_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("devices", False, str(error), mend), {}
    try:
        facts = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("devices", False, f"{command[0]}: {said}", mend), {}
    seen = {name: facts.pop(name, "") for name in ("devices", "platform", "kind", "error")}
    ok = int(seen["devices"]) >= count and (seen["platform"] == "cpu") == (platform == "cpu")
    said = f"{seen['devices']} of {count}, {seen['kind'] or seen['platform']} {seen['error']}".strip()
    return Finding("devices", ok, said, mend), facts


def check_apptainer() -> Finding:
    found = shutil.which("apptainer")
    mend = "ask the site for apptainer (or load its module in `setup`); as root on Debian: ornith sandbox install"
    if not found:
        return Finding("apptainer", False, "no such program on PATH", mend)
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("apptainer", False, str(error), mend)
    return Finding("apptainer", done.returncode == 0, (done.stdout + done.stderr).strip(), mend)


def check_sandboxes(backend: str) -> list[Finding]:
    """Everything that a sandbox needs, and a sandbox of each kind, tried by `ornith sandbox doctor`.

    Args:
        backend: rollout.sandbox of the experiment; that one must be there.
    """
    found = asyncio.run(examine())
    return [Finding(c.name, c.ok, c.said, c.mend) for c in found if c.needed or c.name == backend]


def check_scratch(folder: Path) -> Finding:
    """The node's own disk: writable, and room for sandboxes."""
    mend = f"set `scratch` of the site to a folder on a local disk with {SCRATCH_GB} GB free that jobs may write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_and_rename(folder)
        free = shutil.disk_usage(folder).free / GB
    except OSError as error:
        return Finding("scratch", False, f"{folder}: {error.strerror or error}", mend)
    return Finding("scratch", free >= SCRATCH_GB, f"{folder}: writable, {free:,.0f} GB free", mend)


def check_shared(folder: Path) -> Finding:
    """The shared file system from this node: how long a small durable file takes, and how much room there is."""
    mend = f"`run_root` must be writable from every node, answer within {SLOW_S} s and have {SHARED_GB} GB free"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        took = statistics.median(_write_and_rename(folder) for _ in range(10))
        free = shutil.disk_usage(folder).free / GB
    except OSError as error:
        return Finding("shared files", False, f"{folder}: {error.strerror or error}", mend)
    said = f"{folder}: {took * 1e3:.1f} ms to write, sync and rename; {free:,.0f} GB free"
    return Finding("shared files", took < SLOW_S and free >= SHARED_GB, said, mend)


def check_ports(ports: Sequence[int]) -> Finding:
    """Of the range that firewalls leave open; a run needs one for the learner and one for each engine of the node."""
    if not ports:
        return Finding("ports", True, "any; the system chooses")
    taken = [port for port in range(ports[0], ports[1] + 1) if in_use(port)]
    count = ports[1] - ports[0] + 1
    said = f"{count - len(taken)} of {ports[0]}-{ports[1]} are free"
    said += f"; in use: {', '.join(map(str, taken[:8]))}" if taken else ""
    mend = "widen `ports` of the site, or end what listens there (ss -ltnp)"
    return Finding("ports", len(taken) <= count // 2 and len(taken) < count, said, mend)


def host_facts() -> dict[str, str]:
    """Versions of what the node itself brings."""
    found = {"kernel": os.uname().release}
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        found["nvidia driver"] = driver.read_text().splitlines()[0]
    apptainer = check_apptainer()
    if apptainer.ok:
        found["apptainer"] = apptainer.said
    return found


def _write_and_rename(folder: Path) -> float:
    began, name = time.monotonic(), f"{os.uname().nodename}.{os.getpid()}"
    partial, final = folder / f".preflight.{name}.partial", folder / f".preflight.{name}"
    try:
        with partial.open("w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, final)
        if final.read_text() != name:
            raise OSError(0, "a file that was renamed does not hold what was written")
    finally:
        partial.unlink(missing_ok=True)
        final.unlink(missing_ok=True)
    return time.monotonic() - began
