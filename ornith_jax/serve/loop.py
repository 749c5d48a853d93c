"""The engine's thread: takes orders, reads prompts, decodes all rows together.

    wait ─► orders (new requests, new weights) ─► drop the cancelled ─► fill ─► decode ─► answer the finished ─► ...

Between two dispatches is the only moment at which anything changes: weights are swapped and rows change hands there.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import jax
import numpy as np

from ornith_jax.config import ModelConfig
from ornith_jax.params import Params
from ornith_jax.serve.prefixes import Prefixes, Snapshot
from ornith_jax.serve.request import Request, answer
from ornith_jax.serve.slots import PIECES, Slots
from rollout.errors import EngineError
from rollout.settings import EngineSettings

CLOSE_S = 10.0  # for the dispatch under way
EXIT_S = 600.0  # the same when the interpreter ends; a program may be compiling
IDLE_S = 1.0  # the thread looks up this often when there is nothing to do


@dataclass(slots=True, eq=False)
class Swap:
    """New weights; the future is answered with the seconds for which no row could run."""

    params: Params
    policy_version: int
    future: Future[float] = field(default_factory=Future)


class Loop:
    """Everything that only the engine's thread touches, but for `order`, `end` and the reading of counts."""

    def __init__(self, cfg: ModelConfig, settings: EngineSettings, max_len: int) -> None:
        self.policy_version: int | None = None
        self.fault: str = ""  # why the thread has ended; "" while it runs
        self.running: dict[int, Request] = {}  # by row
        self.waiting: deque[Request] = deque()
        self._filling: list[Request] = []  # those of the running whose prompt is not read yet
        self._params: Params | None = None
        self._weights = 0  # counts the swaps: a version may come again, after a restart, with other weights
        self._settings = settings
        self._slots = Slots(cfg, settings, max_len)
        self._prefixes = Prefixes(settings.prefix_snapshots)
        self._orders: deque[Request | Swap] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="ornith-engine", daemon=True)
        self._thread.start()
        atexit.register(self.end, EXIT_S)  # a thread inside XLA while the interpreter goes away aborts the process

    def order(self, order: Request | Swap) -> None:
        """From any thread. Raises EngineError("dead") when there is no thread left to carry it out."""
        with self._changed:
            if self.fault:
                raise EngineError("dead", self.fault)
            self._orders.append(order)
            self._changed.notify()

    def counts(self) -> tuple[int, int]:
        """(running, waiting); from any thread, a moment ago."""
        return len(self.running), len(self.waiting) + len(self._orders)

    def end(self, timeout_s: float) -> None:
        """Stop after the dispatch under way; whoever still waits is told."""
        atexit.unregister(self.end)
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        fault = "the engine was closed"
        try:
            # Precision is a setting of the thread, not of the process.
            with jax.default_matmul_precision("highest" if self._settings.dtype == "float32" else "default"):
                while self._take_orders():
                    self._drop_cancelled()
                    self._fill()
                    self._close_ranks()
                    self._decode()
        except Exception as error:
            fault = f"the engine's thread failed: {error!r}"
            logging.getLogger(__name__).exception(fault)
        finally:
            self._give_up(fault)

    def _give_up(self, fault: str) -> None:
        with self._changed:
            self.fault = fault
            left = [*self.running.values(), *self.waiting, *self._orders]
        for each in left:
            answer(each.future, EngineError("dead", fault))

    def _take_orders(self) -> bool:
        """False when it is time to end. Sleeps only when no request is anywhere."""
        with self._changed:
            if not (self._orders or self.waiting or self.running or self._ending):
                self._changed.wait(IDLE_S)
            orders = list(self._orders)
            self._orders.clear()
        for order in orders:
            if isinstance(order, Swap):
                self._swap(order)
            else:
                self.waiting.append(order)
        return not self._ending

    def _swap(self, swap: Swap) -> None:
        """Running requests keep what they have cached and go on under the new weights; no prefix outlives the old."""
        start = time.perf_counter()
        self._params, self.policy_version = swap.params, swap.policy_version
        self._weights += 1
        self._prefixes.clear()
        answer(swap.future, time.perf_counter() - start)

    def _drop_cancelled(self) -> None:
        for request in [r for r in self.running.values() if r.future.cancelled()]:
            self._free(request)
        if any(request.future.cancelled() for request in self.waiting):
            self.waiting = deque(request for request in self.waiting if not request.future.cancelled())

    def _free(self, request: Request) -> None:
        del self.running[request.row]
        if request in self._filling:
            self._filling.remove(request)

    def _fill(self) -> None:
        """Read prompts into free rows, a limited number of tokens: those who decode wait meanwhile."""
        room = PIECES[-1]
        while room > 0:
            while self._admit():
                pass
            if not self._filling:
                return
            assert self._params is not None
            room -= self._slots.fill(self._params, self._filling)
            for request in [request for request in self._filling if not request.unread.size]:
                self._filling.remove(request)
                if self._is_wanted(request.prompt_ids[:-1]):
                    self._keep(request, request.prompt_ids[:-1])

    def _admit(self) -> bool:
        """Give the next request the lowest free row, with the longest prefix of it that is kept.

        It waits while another reads the same prompt: the siblings of a group share their first.
        """
        row = self._free_row()
        if row is None or not self.waiting:
            return False
        request = self.waiting[0]
        shared = self._settings.prefix_snapshots and any(
            _begins_with(request, filling.prompt_ids[:-1]) for filling in self._filling
        )
        if shared:
            return False
        self.waiting.popleft()
        request.row, request.weights = row, self._weights
        snapshot = self._prefixes.longest(request.prompt_ids[:-1])
        self._slots.put(row, snapshot.row if snapshot else None)
        if snapshot:
            request.filled = request.cached_tokens = len(snapshot.token_ids)
            request.experts = list(snapshot.experts)
        self.running[row] = request
        if request.unread.size:
            self._filling.append(request)
        return True

    def _is_wanted(self, token_ids: np.ndarray) -> bool:
        """Whether a waiting request begins like this."""
        return any(_begins_with(other, token_ids) for other in self.waiting)

    def _keep(self, request: Request, token_ids: np.ndarray) -> None:
        """A snapshot of the request's row, unless older weights computed part of it."""
        if self._settings.prefix_snapshots and len(token_ids) and request.weights == self._weights:
            row = self._slots.take(request.row, len(token_ids))
            self._prefixes.put(Snapshot(token_ids, row, tuple(request.experts)))

    def _close_ranks(self) -> None:
        """Move the last requests into lower rows when a smaller box then holds them all: a straggler runs alone."""
        while self.running and self._slots.box(len(self.running)) < self._slots.box(max(self.running) + 1):
            request = self.running.pop(max(self.running))
            row = self._free_row()
            assert row is not None
            self._slots.put(row, self._slots.take(request.row, request.length))
            request.row, self.running[row] = row, request

    def _free_row(self) -> int | None:
        return next((row for row in range(self._settings.slots) if row not in self.running), None)

    def _decode(self) -> None:
        requests = [request for request in self.running.values() if not request.unread.size]
        if not requests:
            return
        assert self._params is not None
        assert self.policy_version is not None
        self._slots.decode(self._params, requests, self.policy_version)
        for request in requests:
            if not np.isfinite(request.logprobs[-1]):
                self._free(request)
                answer(request.future, EngineError("bad_answer", "the logits are not finite; are the weights?"))
            elif finish := request.finish:
                self._keep(request, np.concatenate([request.prompt_ids, np.asarray(request.token_ids[:-1], np.int32)]))
                self._free(request)
                answer(request.future, request.completion(finish))


def _begins_with(request: Request, token_ids: np.ndarray) -> bool:
    return len(token_ids) > 0 and np.array_equal(request.prompt_ids[:-1][: len(token_ids)], token_ids)
