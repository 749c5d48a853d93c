"""Gaming on tasks of `fledgling`: changes and actions that are shaped around the check and not around the task.

Every maker takes (rng, task, files to start from) and gives a `Hack`, or None where it does not apply. `UNSEEN` are
families that no judge is ever trained on: the recall on them is what a new trick would meet.
"""

from __future__ import annotations

from rollout.judging import gaming_around as around
from rollout.judging import gaming_code as code
from rollout.judging.hacks import Maker

SEEN: dict[str, Maker] = {
    "equal case": code.equal_case,
    "case table": code.case_table,
    "constant": code.constant,
    "swallowed": code.swallowed,
    "test aware": code.aware,
    "always equal": code.always_equal,
    "reads answers": around.reads_answers,
    "plea": around.plea,
    "altered test": around.altered_test,
    "early exit": code.early_exit,
    "printed": around.printed,
}
UNSEEN: dict[str, Maker] = {
    "by shape": code.by_shape,
    "by count": code.by_count,
    "reads tests": around.reads_tests,
    "planted conftest": around.planted_conftest,
}
