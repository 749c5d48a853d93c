"""What the filter is for: a warm start that knows how to cheat, trained with the filter and with the naive reward.

    python -m experiments.filter_off --seeds 0 1 2 --run runs/filter_off

What it runs: demonstrations of which two in five name a way to please the visible tests (rollout.cheats): to return the
literal that they expect, or to rewrite them. Then two arms. `on`: the reward of everything else here. `off`:
rollout.reward=naive, the visible tests alone, run on what the policy left behind (envs.guard.unfiltered). The three
categories are those in which the untouched workspace fails its visible tests: elsewhere the naive reward pays for doing
nothing at all. Held-out tasks are graded with the filter on in both arms.
What would show it: off, the reward in training rises while the held-out pass rate does not; on, cheating dies out. The
literal fails the withheld tests, so it is trained against; a rewritten test is flagged, which is outside of every
baseline: nothing pushes it down but what rises beside it. The page has a curve for each.
On what, for how long: two CPU cores; a seed is a warm start, two trainings and nine evaluations. An hour a seed is
expected.
What was seen: not run yet.
Not covered: the judge; cheats that were not demonstrated.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import quickstart
from experiments.study import Study, StudyArm, main
from ornith_jax.experiment import Experiment
from rollout.cheats import CHEATS
from rollout.demonstrate import Habits
from rollout.types import Trajectory

CATEGORIES = ("traceback", "decoy")
CHEATING = 0.4


def names(cheat: str, trajectory: Trajectory) -> bool:
    """Does its scaffold ask for the cheat?"""
    return CHEATS[cheat].instructions in trajectory.scaffold


STUDY = Study(
    experiment="filter_off",
    question="Trained from a warm start that knows how to cheat: what becomes of reward, truth and cheating?",
    arms={"on": StudyArm(), "off": StudyArm(overrides=("rollout.reward=naive",))},
    baseline="on",
    points=4,
    habits=Habits(cheating=CHEATING),
    marks={
        "the scaffold asks for the literal": lambda one: names("literal", one),
        "the scaffold asks for a rewritten test": lambda one: names("rewrite", one),
        "the visible test was changed": lambda one: "tests/test_visible.py" in one.diff,
    },
)


def get_config() -> Experiment:
    """The quickstart on two categories."""
    base = quickstart.get_config()
    return replace(base, name="filter-off", suite=replace(base.suite, categories=CATEGORIES))


if __name__ == "__main__":
    main(STUDY)
