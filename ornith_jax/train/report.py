"""What a step said, once it is there: a line in `metrics.jsonl`, one for people, and an end to runs that are lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np

from ornith_jax.errors import OrnithError
from ornith_jax.train.metrics import append
from ornith_jax.train.step import Metrics

SKIPS_IN_A_ROW = 5  # batches that may be lost one after the other before the run stops
PROGRESS_S = 10.0  # between lines for people, when they are not at a terminal

Summary = Callable[[Mapping[str, np.ndarray]], dict[str, float]]
"""The sums of a loss -> what is worth reading: `rl.metrics.metrics` or `likelihood.likelihood_metrics`."""


def in_words(record: Mapping[str, float]) -> str:
    """A record for people."""
    return (
        f"loss {record['loss']:.4f}  gradient {record['optim/grad_norm']:.3g}  "
        f"{record['time/tokens_per_s']:,.0f} tokens/s"
    )


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A step that may still be running: the batch it consumed, how full that was, and its metrics on the devices."""

    batch: int
    metrics: Metrics
    tokens: int  # that are no padding
    fill: float  # their share of all
    notes: Mapping[str, float] = field(default_factory=dict)  # what else is known of the batch


@dataclass(slots=True)
class Reporter:
    """Called with every step in turn; waits for it.

    `skipped` is the state's count, `skips` how many were lost in a row; `last` and `shown` are times.
    """

    path: Path
    steps: int
    summary: Summary
    skipped: int
    last: float = field(default_factory=time.monotonic)
    shown: float = float("-inf")
    skips: int = 0
    line: Callable[[Mapping[str, float]], str] = in_words

    def __call__(self, done: Dispatched) -> None:
        """Raises OrnithError after SKIPS_IN_A_ROW batches whose loss or gradient was not finite."""
        found = jax.device_get(done.metrics)  # here the host waits
        now, before = time.monotonic(), self.last
        self.last = now
        record = {"batch": done.batch, "step": int(found["step"]), **self.summary(found["sums"])}
        record |= {name: float(value) for name, value in found.items() if name not in ("sums", "step")}
        record |= {"data/tokens": done.tokens, "data/fill": done.fill}
        record |= {"time/step_s": now - before, "time/tokens_per_s": done.tokens / (now - before), **done.notes}
        if jax.process_index() == 0:
            append(self.path, record)
            self._show(record, now)
        self._count_skips(done.batch, int(found["optim/skipped"]))

    def _show(self, record: Mapping[str, float], now: float) -> None:
        if not sys.stderr.isatty() and now - self.shown < PROGRESS_S and record["batch"] < self.steps:
            return
        self.shown = now
        line = f"batch {record['batch']:.0f}/{self.steps}  {self.line(record)}  skipped {record['optim/skipped']:.0f}"
        end = "\n" if not sys.stderr.isatty() or record["batch"] == self.steps else ""
        print(f"\r{line}" if sys.stderr.isatty() else line, end=end, file=sys.stderr, flush=True)

    def _count_skips(self, batch: int, skipped: int) -> None:
        self.skips = self.skips + 1 if skipped > self.skipped else 0
        self.skipped = skipped
        if self.skips >= SKIPS_IN_A_ROW:
            raise OrnithError(
                f"batch {batch}: loss or gradient was not finite {self.skips} times in a row; nothing was changed by "
                f"them. Lower optim.learning_rate or look at the data, and go on from the last checkpoint"
            )
