"""How much lag does training bear, and what does w(d) do about it? Lag 0, 1, 4 and 8, weighted and not.

    python -m experiments.ablation_staleness --seeds 0 1 2 --run runs/ablation_staleness

What it runs: the quickstart with small batches (two groups) and so many groups under way that the lag is really there:
two for each update that a group may wait. Weighted: loss.k1=1, loss.k2=8, loss.decay=0.5, so that a token of age 4
weighs 0.22 and one of age 8 0.03. Flat: w(d) = 1 up to the bound. At lag 0 and 1 both are the same, so they stand once.
The measured mean and largest age are in the table: the bound is not the lag.
On what, for how long: two CPU cores; a seed is a warm start, six trainings and seven evaluations. Lag 8 keeps up to 144
sandboxes open. Two hours a seed are expected.
What was seen: not run yet.
Not covered: lag from slow weight updates; whether another learning rate would suit another lag better.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import quickstart
from experiments.study import Study, StudyArm, main
from ornith_jax.experiment import Experiment

FLAT = ("loss.k1=8", "loss.k2=8")
GROUPS = 2  # of one update


def lag(updates: int, *more: str) -> StudyArm:
    """A bound, and as many groups under way as it admits."""
    under_way = GROUPS * (updates + 1)
    return StudyArm(
        overrides=(f"rollout.max_staleness={updates}", f"rollout.groups_in_flight={under_way}", *more),
    )


STUDY = Study(
    experiment="ablation_staleness",
    question="How does the held-out pass rate depend on the lag, with and without the staleness weight?",
    arms={
        "lag 0": lag(0),
        "lag 1": lag(1),
        "lag 4": lag(4),
        "lag 4 flat": lag(4, *FLAT),
        "lag 8": lag(8),
        "lag 8 flat": lag(8, *FLAT),
    },
    baseline="lag 0",
)


def get_config() -> Experiment:
    """The quickstart with small batches."""
    base = quickstart.get_config()
    return replace(
        base,
        name="ablation-staleness",
        rollout=replace(base.rollout, groups_per_step=GROUPS, groups_in_flight=GROUPS),
        train=replace(base.train, steps=80),
    )


if __name__ == "__main__":
    main(STUDY)
