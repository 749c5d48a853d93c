"""Stands for `ornith_jax.cli` in job scripts: roles that do nothing but what the scripts around them can see.

The learner counts batches; engines and driver wait for the end. RUN/stub.json says how it goes:
    batches  the learner's                     hang    the batch at which it stops beating, once
    crash    the batch at which it dies, once  refuse  the role that exits with 2
"""

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path

from rollout.run_dir import Progress, beat, read_progress, write_progress


def main() -> int:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda n, _: stop.append(n))
    option = {word: sys.argv[sys.argv.index(word) + 1] for word in ("--run", "--role", "--name") if word in sys.argv}
    run, role, rank = Path(option["--run"]), option["--role"], int(os.environ["SLURM_PROCID"])
    how = json.loads((run / "stub.json").read_text())
    name = option.get("--name", role)
    host = os.uname().nodename
    print(f"{name} rank {rank} of {os.environ['SLURM_NTASKS']} on {host} {os.environ.get('ORNITH_COORDINATOR', '')}"
          f" gpus={os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)  # fmt: skip
    if how.get("refuse") == role:
        return 2
    while not stop:
        progress = read_progress(run) or Progress()
        if progress.is_finished:
            return 0
        if rank == 0:
            beat(run, name, f"batch {progress.batch}")
        if role == "learner" and rank == 0:
            batch = progress.batch + 1
            write_progress(run, Progress(batch=batch, policy_version=batch, is_finished=batch >= how["batches"]))
            _fail_once(run, how, batch)
        time.sleep(0.2)
    print(f"{name} rank {rank} stops orderly", flush=True)
    return 0


def _fail_once(run: Path, how: dict, batch: int) -> None:
    once = run / "failed-once"
    if once.exists() or batch not in (how.get("hang"), how.get("crash")):
        return
    once.touch()
    if batch == how.get("crash"):
        os._exit(1)
    time.sleep(600)


if __name__ == "__main__":
    sys.exit(main())
