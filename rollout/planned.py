"""The groups of a plan, read from the log by whoever trains on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rollout.errors import RolloutError
from rollout.ledger import Admission
from rollout.run_dir import BatchPlan, read_json, read_plan
from rollout.store.codec import from_json
from rollout.store.index import Index
from rollout.types import Group, Trajectory

POLL_S = 0.05
SILENT_S = 3600.0  # a driver that has neither a plan nor a heartbeat for so long is gone
LOG_S = 120.0  # a plan may be seen before the records that it names: parallel file systems cache


def wait_for_plan(run: Path, batch: int, stop: Callable[[], bool]) -> BatchPlan | None:
    """The plan of a batch, once it is there; None when asked to `stop` first.

    Raises RolloutError when nothing has been heard of the driver for SILENT_S.
    """
    heard, silent_since = None, time.monotonic()
    while not stop():
        if (plan := read_plan(run, batch)) is not None:
            return plan
        sign = read_json(run / "heartbeats" / "driver.json")
        if sign != heard:
            heard, silent_since = sign, time.monotonic()
        if time.monotonic() - silent_since > SILENT_S:
            raise RolloutError(f"{run}: no sign of a driver for {SILENT_S:.0f} s; batch {batch} is not planned")
        time.sleep(POLL_S)
    return None


def read_groups(index: Index, plan: BatchPlan) -> tuple[list[Group], list[str]]:
    """(the groups of a plan, in its order, what could not be read of them).

    Raises RolloutError when the log does not hold a group, LOG_S after its plan was seen.
    """
    deadline = time.monotonic() + LOG_S
    index.refresh()
    while missing := [id for id in plan.groups if ("closed", id) not in index.entries]:
        if time.monotonic() > deadline:
            raise RolloutError(f"{index.folder}: group {missing[0]} of batch {plan.batch} is not in the log")
        time.sleep(POLL_S)
        index.refresh()
    groups, problems = [], []
    for id in plan.groups:
        admission = Admission(**index.read("admitted", id))
        members = []
        for place in range(admission.scaffolds * admission.solutions):
            name = f"{id}/{place // admission.solutions}/{place % admission.solutions}"
            if ("trajectory", name) in index.entries:
                try:
                    members.append(from_json(Trajectory, index.read("trajectory", name), f"trajectory {name}"))
                except RolloutError as error:
                    problems.append(str(error))
        category = members[0].category if members else ""
        groups.append(Group(id=id, task_id=admission.task_id, category=category, trajectories=tuple(members)))
    return groups, problems
