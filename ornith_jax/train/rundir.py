"""The run directory: one process at a time, one experiment for ever.

RUN/config.json     the experiment as it was started
RUN/checkpoints/    see `train.checkpoint`
RUN/metrics.jsonl   see `train.metrics`
RUN/weights/        published versions, see `train.publish`
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from ornith_jax.errors import OrnithError
from ornith_jax.experiment import Experiment, from_json, to_json

CONFIG = "config.json"
LOCK = "lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # as parallel file systems may answer
# A restart may change these: where it runs, how long, and how often it saves. Everything else would be another run.
MAY_CHANGE = (
    *(
        "mesh",
        "train.steps",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.keep_versions",
        "rollout.judge",
    ),
    *("engine.slots", "engine.replicas", "engine.urls", "engine.tensor_parallel", "rollout.warm_sandboxes"),
)


@contextmanager
def claim(run_dir: Path, experiment: Experiment) -> Iterator[None]:
    """Hold the run directory, making it if need be.

    Raises OrnithError when another process holds it, or when it belongs to another experiment, naming the fields.
    """
    if jax.process_index() != 0:
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OrnithError(
                f"{run_dir}: another process is training here; wait for it or give another --run"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"ornith: warning: {run_dir}: no file locks here; start this run only once", file=sys.stderr)
        config = run_dir / CONFIG
        if config.exists():
            _check_same(config, experiment)
        partial = run_dir / f".{CONFIG}.partial"
        partial.write_text(to_json(experiment))
        os.replace(partial, config)
        yield


def _check_same(config: Path, experiment: Experiment) -> None:
    try:
        before = from_json(config.read_text())
    except OrnithError as error:
        raise OrnithError(f"{config}: {error}") from None
    old, new = _flat(json.loads(to_json(before))), _flat(json.loads(to_json(experiment)))
    for name, value in new.items():
        if value != old[name] and not name.startswith(MAY_CHANGE):
            raise OrnithError(
                f"{config}: was started with {name}={old[name]}, not {value}; give the same again, or another --run"
            )


def _flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """{"loss.k1": 1, ...}"""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{where}{name}.") if isinstance(value, dict) else {where + name: value}
    return found
