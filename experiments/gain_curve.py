"""When a narrow distribution is learned, does widening it start a new gain, or only delay the plateau?

    python -m experiments.gain_curve --seeds 0 1 2 --run runs/gain_curve

What it runs: three arms from one warm start. `narrow`: two categories, many iterations, until the curve is flat.
`widened`: goes on from narrow's weights in the middle, on four categories. `wide`: four categories from the start.
All are evaluated on held-out tasks of all four categories at even shares of the same tokens. A gain that resets: the
curve of `widened` turns up again, as steep as `wide` was at its start, above all in the two new categories. A plateau
that is only delayed: `widened` and `wide` end at the same height, one later than the other. `widened` starts with a
new optimizer and an empty scaffold library, as a new run does.
On what, for how long: two CPU cores; a seed is a warm start, three trainings and some twenty evaluations. Two hours a
seed are expected.
What was seen: not run yet.
Not covered: more than one widening, harder levels instead of other categories, models that can learn more.
"""

from __future__ import annotations

from dataclasses import replace

from experiments import quickstart
from experiments.study import Study, StudyArm, main
from ornith_jax.experiment import Experiment

NARROW = "suite.categories=traceback,state"
HALF, WHOLE = 40, 80  # batches
STUDY = Study(
    experiment="gain_curve",
    question="When the task distribution is widened, does the gain reset, or is the plateau only delayed?",
    arms={
        "narrow": StudyArm(overrides=(NARROW, f"train.steps={WHOLE}")),
        "widened": StudyArm(overrides=(f"train.steps={WHOLE - HALF}",), after="narrow", at=HALF),
        "wide": StudyArm(overrides=(f"train.steps={WHOLE}",)),
    },
    baseline="wide",
    points=6,
)


def get_config() -> Experiment:
    """The quickstart with a fourth category."""
    base = quickstart.get_config()
    return replace(
        base, name="gain-curve", suite=replace(base.suite, categories=(*quickstart.CATEGORIES, "search"), count=480)
    )


if __name__ == "__main__":
    main(STUDY)
