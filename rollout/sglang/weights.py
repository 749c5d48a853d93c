"""New weights for one running server: pause, load from the published folder, prove it, go on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.errors import EngineError
from rollout.published import READY
from rollout.sglang.folder import Tensors, read_tensors
from rollout.sglang.http import Http

LOAD_S = 1800.0
CONTROL_S = 60.0
CANARY_IDS = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Served:
    """What a server is known to serve. `files`: a digest of the published files; "" when they were never published."""

    tensors: Tensors
    digest: str  # of the values, as the server sums them up
    files: str

    @classmethod
    async def of(cls, http: Http, model_path: Path) -> Served:
        """Of a server that was started from `model_path`, and may have been updated since."""
        tensors = await asyncio.to_thread(read_tensors, model_path)
        now = (await http.get("/model_info", deadline_s=CONTROL_S))["model_path"]
        return cls(tensors, await _digest(http), _files_digest(Path(now)))


@contextlib.asynccontextmanager
async def paused(http: Http, mode: str) -> AsyncIterator[None]:
    """The server holds all requests, running ones too; it goes on afterwards, whatever happened."""
    await http.post("/pause_generation", {"mode": mode}, deadline_s=CONTROL_S)
    try:
        yield
    finally:
        await http.post("/continue_generation", {}, deadline_s=CONTROL_S)


async def load_weights(http: Http, served: Served, path: Path, policy_version: int, *, mode: str) -> Served:
    """Load a folder into a paused server and prove it; what it serves now.

    In place, caches stay: a flush would fail, yet leave the new weights under the old version's name. New requests do
    not meet the old caches, because each version has a prefix cache of its own (`extra_key`).

    Raises:
        EngineError: "update_failed": the server is on its old weights. Any other cause: nobody knows, start it again.
    """
    body = {
        "model_path": str(path),
        "weight_version": str(policy_version),
        "flush_cache": mode == "retract",
        "abort_all_requests": False,
    }
    try:
        await http.post("/update_weights_from_disk", body, deadline_s=LOAD_S)
    except EngineError as error:
        raise await _what_now(http, error, policy_version) from None
    now = Served(served.tensors, await _digest(http), _files_digest(path))
    await _prove(http, served, now, policy_version)
    return now


async def _what_now(http: Http, error: EngineError, policy_version: int) -> EngineError:
    """A refusal leaves the old weights; anything else, or a server that names the new version, leaves doubt."""
    if error.cause != "rejected" or await _version(http) == str(policy_version):
        return EngineError("dead", f"{error}; its weights are in doubt")
    return EngineError("update_failed", str(error))


async def _prove(http: Http, before: Served, now: Served, policy_version: int) -> None:
    """ "success" alone proves nothing: the version's name and the values must have changed too."""
    name = await _version(http)
    if name != str(policy_version):
        raise EngineError("dead", f"{http.url} says it serves version {name!r} after an update to {policy_version}")
    if before.files and now.files != before.files and now.digest == before.digest:
        raise EngineError("dead", f"{http.url} answered success, but not one of its tensors changed")


async def _version(http: Http) -> str:
    return str((await http.get("/model_info", deadline_s=CONTROL_S)).get("weight_version"))


async def _digest(http: Http) -> str:
    """Of the checksums of all tensors on all ranks, under the server's own (fused) names."""
    answer = await http.post("/weights_checker", {"action": "checksum"}, deadline_s=LOAD_S)
    return hashlib.sha256(json.dumps(answer.get("ranks"), sort_keys=True).encode()).hexdigest()


def _files_digest(folder: Path) -> str:
    """Of the checksums in READY; "" for a folder that was never published."""
    ready = folder / READY
    if not ready.is_file():
        return ""
    files: dict[str, Any] = json.loads(ready.read_text())["files"]
    weights = {name: files[name] for name in sorted(files) if name.endswith(".safetensors")}
    return hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest()


async def check_canary(http: Http, policy_version: int) -> None:
    """Log-probabilities of a few ids must be numbers. Raises EngineError("dead"): these weights serve nobody."""
    body = {
        "input_ids": list(CANARY_IDS),
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "extra_key": f"canary{policy_version}",
    }
    answer = await http.post("/generate", body, deadline_s=CONTROL_S)
    logprobs = [triple[0] for triple in answer["meta_info"]["input_token_logprobs"][1:]]
    if not logprobs or not all(isinstance(x, float) and math.isfinite(x) for x in logprobs):
        raise EngineError("dead", f"{http.url}: version {policy_version} gives log-probabilities {logprobs}")
