"""Checkpoints that resume exactly: written in the background, sealed last, and checked before they are used.

CHECKPOINTS/00000012/state/         parameters, optimizer, counters: an orbax checkpoint
CHECKPOINTS/00000012/arrays.json    names, dtypes and shapes of what state/ holds: another model's is refused unread
CHECKPOINTS/00000012/position.json  where the data stands, and whatever else must go on (staleness counters, ...)
CHECKPOINTS/00000012/SEAL.json      size and CRC-32 of every file above, renamed into place when all are on disk

The number counts the batches that were consumed. Nothing in a train step draws random numbers; the order of the data
comes from the seed of the experiment and the position.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ornith_jax.errors import OrnithError
from ornith_jax.train.state import TrainState

SEAL = "SEAL.json"
STATE = "state"
ARRAYS = "arrays.json"
POSITION = "position.json"
READ = 1 << 22  # bytes at a time
DEADLINE_S = 1800  # for one checkpoint to reach the disk


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint: the state after `batch` batches, and the position that was saved with it."""

    state: TrainState
    position: dict[str, Any]
    batch: int


class Checkpoints:
    """The checkpoints of one run, and the one that is being written. Use it as a context: leaving waits for the disk.

    Example: `checkpoints.save(12, state, {"data": iterator.get_state()})` returns when the state has left the devices
    (on a CPU the runtime copies what is donated while it is still read); the rest happens in the background, and its
    errors come out of the next call.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        import orbax.checkpoint as ocp

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.keep = folder.absolute(), keep
        self._orbax = ocp.StandardCheckpointer(async_options=ocp.options.AsyncOptions(timeout_secs=DEADLINE_S))
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._sealing: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def save(self, batch: int, state: TrainState, position: Mapping[str, Any]) -> None:
        """Begin checkpoint `batch`; waits for the one before. `position` holds JSON values."""
        self.wait()
        target = self.folder / f"{batch:08}"
        if jax.process_index() == 0:
            shutil.rmtree(target, ignore_errors=True)  # damaged, or cut short by a kill
            target.mkdir()  # a folder that cannot be written fails here, not minutes later in orbax's threads
        self._orbax.save(target / STATE, state)
        self._sealing = self._thread.submit(self._seal, target, json.dumps(position), json.dumps(_arrays(state)))

    def wait(self) -> None:
        """Until the checkpoint that is under way is on disk. Raises OrnithError when it could not be written."""
        if self._sealing is None:
            return
        try:
            self._sealing.result(timeout=DEADLINE_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise OrnithError(f"{self.folder}: the checkpoint could not be written: {error}") from error
        finally:
            self._sealing = None

    def restore(self, like: TrainState) -> Restored | None:
        """The newest checkpoint that is whole, laid out as the abstract state `like` says; None when there is none.

        One that is damaged or half-written is named on stderr, and the one before it is used.
        Raises OrnithError when there were checkpoints but all are damaged, or when it is of another model or optimizer.
        """
        batch = _newest(self.folder) if jax.process_index() == 0 else -1
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            batch = int(multihost_utils.broadcast_one_to_all(np.int32(batch)))
        if batch < 0:
            return None
        found = self.folder / f"{batch:08}"
        _check_fits(found, like)
        state = self._orbax.restore(found / STATE, like)
        return Restored(state, json.loads((found / POSITION).read_text()), batch)

    def _seal(self, target: Path, position: str, arrays: str) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index() == 0:
            _write(target / POSITION, position)
            _write(target / ARRAYS, arrays)
            seal(target)
            for old in _numbered(self.folder)[self.keep :]:
                (old / SEAL).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
                shutil.rmtree(old)


def seal(folder: Path) -> None:
    """Write the sizes and checksums of all files of `folder`. It reads them back: about a GB/s for each core."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    with ThreadPoolExecutor() as pool:
        marks = dict(zip((str(path.relative_to(folder)) for path in files), pool.map(_mark, files), strict=True))
    partial = folder / f".{SEAL}.partial"
    _write(partial, json.dumps({"format": 1, "files": marks}, indent=1))
    os.replace(partial, folder / SEAL)
    _sync(folder)


def problem(folder: Path) -> str | None:
    """What is wrong with a sealed checkpoint, naming the file; None when every byte is as it was written."""
    try:
        marks = json.loads((folder / SEAL).read_text())["files"]
        wanted = {str(name): (int(size), int(crc)) for name, (size, crc) in marks.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{SEAL} cannot be read ({error!r})"
    for name, (size, _) in wanted.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
    with ThreadPoolExecutor() as pool:
        for name, mark in zip(wanted, pool.map(_mark, [folder / name for name in wanted]), strict=True):
            if mark != wanted[name]:
                return f"{name} was changed after it was written (its checksum differs)"
    return None


def _arrays(state: TrainState) -> dict[str, str]:
    """Name -> dtype and shape of every array, such as ".params['lm_head']": "float32 (256, 64)"."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): f"{leaf.dtype} {leaf.shape}" for path, leaf in leaves}


def _check_fits(folder: Path, like: TrainState) -> None:
    """Raises OrnithError that names the first array which is another one, or only on one side."""
    found, wanted = json.loads((folder / ARRAYS).read_text()), _arrays(like)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            difference = f"{name} is {found.get(name, 'not in it')}, the experiment has {wanted.get(name, 'no such')}"
            raise OrnithError(f"{folder}: does not fit this experiment's model and optimizer: {difference}")


def _newest(root: Path) -> int:
    """The number of the newest whole checkpoint, or -1."""
    damaged = []
    for folder in _numbered(root):
        if not (folder / SEAL).exists():
            print(f"ornith: warning: {folder}: half-written, as a kill leaves it; it is not used", file=sys.stderr)
            continue
        wrong = problem(folder)
        if wrong is None:
            return int(folder.name)
        damaged.append(folder)
        print(f"ornith: warning: {folder}: damaged: {wrong}; going back to the one before", file=sys.stderr)
    if damaged:
        raise OrnithError(f"{damaged[-1]}: no checkpoint is whole; restore one, or remove {root} to begin again")
    return -1


def _numbered(root: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in root.iterdir() if path.name.isdigit()), key=lambda path: -int(path.name))


def _mark(path: Path) -> tuple[int, int]:
    """(size, CRC-32)."""
    size = crc = 0
    with path.open("rb") as file:
        while chunk := file.read(READ):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return size, crc


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
