"""One running SGLang server as an `Engine`: ids in, ids with behaviour log-probabilities and version spans out."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout.engine import Health
from rollout.errors import EngineError, RolloutError
from rollout.published import verify
from rollout.sglang.folder import check_same, vocab_size
from rollout.sglang.http import Http
from rollout.sglang.request import ServerInfo, build_body, check, is_truncated, read_answer, read_info
from rollout.sglang.weights import Served, check_canary, load_weights, paused
from rollout.types import Completion, Finish, Sampling

ABORT_S = 10.0  # for the partial answer of a request that we stopped
CONTROL_S = 30.0


class SGLangEngine:
    """`engine = await SGLangEngine.connect("http://host:30000")`. Use it in the event loop that connected it.

    It sends no more requests than the server runs at once: the others wait here, so that the policy version of a
    request, which names its prefix cache, is decided when it starts. Requests wait here during an update too.
    """

    def __init__(self, http: Http, info: ServerInfo, served: Served, mode: str, drop_seeds: bool) -> None:
        self.info = info
        self._drop_seeds = drop_seeds and not info.deterministic
        self._http = http
        self._served = served
        self._mode = mode
        self._policy_version: int | None = None
        self._slots = asyncio.Semaphore(info.capacity)
        self._open = asyncio.Event()  # clear while an update is under way
        self._open.set()
        self._updating = asyncio.Lock()
        self._running = 0
        self._waiting = 0
        self._aborts: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls, url: str, *, mode: str = "in_place", token: str = "", drop_seeds: bool = False
    ) -> SGLangEngine:
        """Read what the server is. Raises EngineError when it does not answer or is no sglang that we know.

        Args:
            mode: of updates. "in_place": running requests keep their caches; "retract": they are prefilled again
                under the new weights, exact but slower (docs/engines.md).
            token: of the server's --admin-api-key or --api-key.
            drop_seeds: a server that takes none draws its own, instead of refusing a request with a seed.
        """
        http = Http(url, token)
        try:
            answer = await http.get("/server_info", deadline_s=CONTROL_S)
            path = Path(answer["model_path"]) if isinstance(answer, dict) else Path()
            size = await asyncio.to_thread(vocab_size, path)
            info = read_info(answer, size)
            return cls(http, info, await Served.of(http, path), mode, drop_seeds)
        except BaseException:
            await http.close()
            raise

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def policy_version(self) -> int | None:
        return self._policy_version

    @property
    def capacity(self) -> int:
        """Requests that the server runs at once."""
        return self.info.capacity

    @property
    def load(self) -> int:
        """Requests that this client has given it and that are not answered."""
        return self._running + self._waiting

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, deadline_s: float) -> Completion:
        """See `Engine.generate`. Log-probabilities at temperature 0 are those of the plain softmax."""
        if self._policy_version is None:
            raise EngineError("not_ready", f"{self.url}: no confirmed policy version; update its weights first")
        if self._drop_seeds:
            sampling = replace(sampling, seed=None)
        check(prompt_ids, sampling, self.info)
        started = time.monotonic()
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline_s):
                await self._slots.acquire()
        except TimeoutError:
            return _nothing(time.monotonic() - started)
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            return await self._send(prompt_ids, sampling, started, started + deadline_s)
        finally:
            self._running -= 1
            self._slots.release()

    async def update_weights(self, path: Path, policy_version: int) -> float:
        """See `Engine.update_weights`. Every file is compared with its checksum before the server hears of it."""
        try:
            await asyncio.to_thread(verify, path, policy_version)
        except RolloutError as error:
            raise EngineError("update_failed", str(error)) from None
        return await self.load_verified(path, policy_version)

    async def load_verified(self, path: Path, policy_version: int) -> float:
        """`update_weights` for a folder whose checksums somebody has compared already (one of several replicas)."""
        async with self._updating:
            await asyncio.to_thread(check_same, path, self._served.tensors)
            self._open.clear()
            try:
                started = time.monotonic()
                async with paused(self._http, self._mode):
                    self._served = await load_weights(self._http, self._served, path, policy_version, mode=self._mode)
                    self._policy_version = policy_version
                seconds = time.monotonic() - started
                await check_canary(self._http, policy_version)
            except EngineError as error:
                if error.cause != "update_failed":  # nobody knows which weights it has now
                    self._policy_version = None
                raise
            finally:
                self._open.set()
        return seconds

    async def health(self) -> Health:
        """Never by /health, which generates a token and blocks while the server is paused."""
        await self._http.get("/model_info", deadline_s=CONTROL_S)
        return Health(
            policy_version=self._policy_version,
            running=self._running,
            waiting=self._waiting,
            capacity=self.info.capacity,
        )

    async def close(self) -> None:
        """Ends the connections; the server itself goes on."""
        if self._aborts:
            await asyncio.wait(self._aborts, timeout=ABORT_S)
        await self._http.close()

    async def _send(self, prompt_ids: Sequence[int], sampling: Sampling, started: float, end: float) -> Completion:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                await self._open.wait()
        except TimeoutError:
            return _nothing(time.monotonic() - started)
        version = self._policy_version
        if version is None:
            raise EngineError("not_ready", f"{self.url}: its last update was lost half way; update its weights again")
        request_id = uuid.uuid4().hex
        body = build_body(prompt_ids, sampling, self.info, request_id=request_id, policy_version=version)
        left = max(end - time.monotonic(), 0.0)
        call = asyncio.create_task(self._http.post("/generate", body, deadline_s=left + 2 * ABORT_S))
        try:
            done, _ = await asyncio.wait({call}, timeout=left)
            if not done:
                await self._abort(request_id)
            answer = await call
        except asyncio.CancelledError:
            call.cancel()
            self._abort_later(request_id)
            raise
        return read_answer(
            answer, truncated=is_truncated(sampling), aborted=not done, seconds=time.monotonic() - started
        )

    async def _abort(self, request_id: str) -> None:
        with contextlib.suppress(EngineError):
            await self._http.post("/abort_request", {"rid": request_id}, deadline_s=ABORT_S)

    def _abort_later(self, request_id: str) -> None:
        """The caller is gone; the server must still hear of it, for it notices a lost connection only after seconds."""
        task = asyncio.create_task(self._abort(request_id))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)


def _nothing(seconds: float) -> Completion:
    """The deadline passed before the request had a place."""
    return Completion(token_ids=(), behavior_logprobs=(), versions=(), finish=Finish.DEADLINE, seconds=seconds)
