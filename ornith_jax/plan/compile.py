"""Compile an experiment for a slice, in a process of its own, with a deadline and a line that shows it is alive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment, to_json
from ornith_jax.plan.devices import TPU_ENVIRONMENT
from ornith_jax.plan.topology import Topology

DEADLINE_S = 7200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the compiler said, in bytes per device. Without room for it (`fits` False) only `needed` is known."""

    arguments: dict[str, int]  # by kind, computed from shapes and shardings
    needed: int  # arguments, temporaries, program; what XLA asks for when that is too much
    argument_bytes: int = 0  # as XLA lays them out
    temporary_bytes: int = 0
    code_bytes: int = 0
    collectives: dict[str, int] = field(default_factory=dict)  # kind -> bytes of one step (plan.hlo)
    traffic: int = 0  # bytes of one step through the device's memory (plan.hlo)
    compile_seconds: float = 0.0
    cpu_seconds: float = 0.0
    host_bytes: int = 0  # memory of the compilation itself

    @property
    def complete(self) -> bool:
        """False when XLA gave up for want of memory."""
        return self.argument_bytes > 0


def compile_for(
    experiment: Experiment, topology: Topology, *, decode: bool = False, deadline_s: float = DEADLINE_S
) -> Compiled:
    """Compile the train step, or a decoding step, for devices that need not be there.

    Raises OrnithError for an experiment that does not fit the mesh, a compiler that is missing or fails, and after
    `deadline_s`. Progress goes to stderr.
    """
    job = {"experiment": to_json(experiment), "topology": topology.name, "decode": decode}
    with tempfile.TemporaryDirectory(prefix="ornith-plan-") as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log"
        with log.open("wb") as errors:
            worker = subprocess.Popen(
                [sys.executable, "-m", "ornith_jax.plan.worker", str(result)],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                env=_environment(Path(folder) / "xla"),
            )
            assert worker.stdin is not None
            worker.stdin.write(json.dumps(job).encode())
            worker.stdin.close()
            try:
                _wait(worker, topology.name, deadline_s, sys.stderr)
            finally:
                worker.kill()
                worker.wait()
        if not result.exists():
            last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-15:])
            raise OrnithError(f"topology {topology.name}: the compilation died (exit {worker.returncode}):\n{last}")
        answer = json.loads(result.read_text())
    if "error" in answer:
        raise OrnithError(answer["error"])
    return Compiled(**answer)


def _environment(dump: Path) -> dict[str, str]:
    """Of the worker: a CPU as the only real device, the TPU compiler quiet, XLA's text written to `dump`."""
    flags = f"--xla_dump_to={dump} --xla_dump_hlo_as_text"
    own = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # a program from a cache is not compiled, and nothing is written
        "XLA_FLAGS": flags,
        "ORNITH_PLAN_DUMP": str(dump),
    }
    return os.environ | TPU_ENVIRONMENT | own


def _wait(worker: subprocess.Popen[bytes], name: str, deadline_s: float, out: IO[str]) -> None:
    started, shown = time.monotonic(), 0.0
    live = out.isatty()
    while worker.poll() is None:
        elapsed = time.monotonic() - started
        if elapsed > deadline_s:
            raise OrnithError(f"topology {name}: still compiling after {deadline_s:.0f} s; raise --deadline")
        if elapsed - shown >= (1.0 if live else 60.0):
            shown = elapsed
            print(f"\rcompiling for {name}: {elapsed:.0f} s", end="" if live else "\n", file=out, flush=True)
        time.sleep(0.1)
    if live:
        print("\r" + " " * 60, end="\r", file=out, flush=True)
