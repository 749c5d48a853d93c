"""A study: arms of one experiment, trained from one warm start for each seed, compared at equal sampled tokens.

    RUN/seed0/school/            the warm start of a seed, shared by its arms (or --model)
    RUN/seed0/before/evals/      held-out tasks before training, by rollout.arm
    RUN/seed0/ARM/               a run of `ornith train`; its evaluations are in evals/
    RUN/study.json, study.html   what came of it (experiments.study_results, experiments.study_page)
    RUN/figures/                 its charts

Everything is a command of `ornith` in a process of its own, one after the other; what is done is skipped, so the same
call goes on after an interruption. All published versions are kept until they are evaluated.

Equal tokens: version v costs the tokens that versions before v sampled in training, of both stages, each proposal
once, dropped groups included. The budget of a seed is what its cheapest arm spent; every arm is evaluated at its
newest version within the budget (or within even shares of it, for a curve). What an arm sampled beyond is not used.

Held-out tasks are those of `suite.seed` + 1000: no arm trains on them, whatever categories it has.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.school import SELF, lesson_tasks, warm_start
from experiments.study_page import render
from experiments.study_results import affordable, collect, seed_costs, table, version_after
from ornith_jax.experiment import load
from rollout.demonstrate import Habits
from rollout.report.figures import write_figures
from rollout.run_dir import read_json, read_progress, write_json
from rollout.types import Arm, Trajectory

FRESH = 1000  # added to suite.seed for held-out tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyArm:
    """What is different in one arm. With `after` it goes on from the weights of that arm after batch `at`."""

    overrides: tuple[str, ...] = ()
    after: str = ""  # an arm that stands before it
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """`marks` are shares of the training episodes to follow: name -> is it so in this one?"""

    experiment: str  # a name in experiments/
    question: str
    arms: Mapping[str, StudyArm]
    baseline: str  # the arm that the others are compared with
    points: int = 1  # evaluations of each arm after training began, at even shares of the tokens
    habits: Habits | None = None  # of the demonstrator; None: those of the quickstart
    shares: Mapping[Arm, float] = field(default_factory=lambda: SELF)  # of the tasks that are demonstrated, by arm
    marks: Mapping[str, Callable[[Trajectory], bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """One seed of a study that runs."""

    study: Study
    folder: Path
    seed: int
    words: tuple[str, ...]  # overrides of all arms, from the command line
    model: str  # a warm start that is there already; "": make one
    tasks: int
    samples: int

    @property
    def common(self) -> list[str]:
        return [f"seed={self.seed}", f"suite.seed={self.seed}"]


def main(study: Study, words: Sequence[str] | None = None) -> None:
    """The whole command line of a study."""
    parser = argparse.ArgumentParser(description=study.question)
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="of all arms")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--run", type=Path, default=Path("runs") / study.experiment)
    parser.add_argument("--model", default="", help="warm starts that are there already; {seed} stands for the seed")
    parser.add_argument("--tasks", type=int, default=50, help="held-out tasks, evenly over the categories")
    parser.add_argument("--samples", type=int, default=2, help="of each held-out task")
    parser.add_argument("--collect", action="store_true", help="run nothing: read what is there")
    args = parser.parse_intermixed_args(words)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    began = time.monotonic()
    for seed in () if args.collect else args.seeds:
        one = Seed(
            study=study,
            folder=args.run / f"seed{seed}",
            seed=seed,
            words=tuple(args.overrides),
            model=args.model.format(seed=seed),
            tasks=args.tasks,
            samples=args.samples,
        )
        play(one, began)
        report(study, args.run)
    print(report(study, args.run))
    print(f"-> {args.run / 'study.html'}")


def report(study: Study, run: Path) -> str:
    """Write study.json and study.html of what is there by now; the table for people."""
    found = collect(run, study.experiment, study.question, study.baseline, _parents(study), study.marks)
    write_json(run / "study.json", found)
    page, partial = render(found), run / ".study.html.partial"
    partial.write_text(page, encoding="utf-8")
    partial.replace(run / "study.html")
    write_figures(page, run / "figures")
    return table(found)


def play(one: Seed, began: float) -> None:
    """All arms of a seed: warm start, before, training, evaluations at equal tokens."""
    study = one.study
    _say(began, f"seed {one.seed}: warm start")
    model = one.model or str(_school(one))
    for name, arm in study.arms.items():
        _say(began, f"seed {one.seed}, {name}: before")
        kind = load(study.experiment, [*one.common, *arm.overrides, *one.words]).rollout.arm.value
        _evaluate(one, model, one.folder / "before", kind, kind)
        _say(began, f"seed {one.seed}, {name}: training")
        _train(one, name, model)
    costs = seed_costs(one.folder, _parents(study))
    budget = min(cost[-1] for cost in costs.values())
    for name, arm in study.arms.items():
        kind = load(study.experiment, [*one.common, *arm.overrides, *one.words]).rollout.arm.value
        weights = one.folder / name / "weights"
        for version in versions(costs[name], budget, study.points, is_child=bool(arm.after)):
            _say(began, f"seed {one.seed}, {name}: version {version}, {costs[name][version]:,} of {budget:,} tokens")
            known = f"v{version:07d}"
            _evaluate(one, str(weights / known), one.folder / name, known, kind)


def versions(costs: Sequence[int], budget: int, points: int, *, is_child: bool = False) -> list[int]:
    """Which versions to evaluate: the newest within even shares of what the budget leaves after the start.

    An arm that went on from another one is evaluated at its start too.
    """
    first = costs[0]
    shares = [first + (budget - first) * point // points for point in range(1, points + 1)]
    found = {affordable(costs, share) for share in shares}
    return sorted(found | ({0} if is_child else set()))


def _parents(study: Study) -> dict[str, tuple[str, int]]:
    return {name: (arm.after, arm.at) for name, arm in study.arms.items()}


def _school(one: Seed) -> Path:
    """The warm start, in a process of its own: it takes memory that is wanted back."""
    folder = one.folder / "school"
    if not (folder / "model").exists():
        experiment = load(one.study.experiment, [*one.common, *one.words])
        tasks = lesson_tasks(experiment.suite)
        habits = one.study.habits and replace(one.study.habits, seed=one.seed)
        process = multiprocessing.get_context("spawn").Process
        how = {"habits": habits, "shares": one.study.shares}
        child = process(target=warm_start, args=(folder, tasks, experiment), kwargs=how)
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(child.exitcode)
    return folder / "model"


def _train(one: Seed, name: str, model: str) -> None:
    arm, folder = one.study.arms[name], one.folder / name
    if arm.after:
        parent = one.folder / arm.after
        model = str(parent / "weights" / f"v{version_after(parent, arm.at):07d}")
    words = [*one.common, f"model={model}", *arm.overrides, *one.words]
    steps = load(one.study.experiment, words).train.steps
    progress = read_progress(folder)
    if progress is None or not progress.is_finished or progress.batch < steps:
        _ornith("train", one.study.experiment, *words, f"train.keep_versions={steps + 1}", "--run", folder)


def _evaluate(one: Seed, model: str, out: Path, name: str, arm: str) -> None:
    """Always with the filter on and on the tasks of the study's own experiment, whatever an arm trains on."""
    known = read_json(out / "evals" / f"{name}.json")
    if known is None:
        words = [f"seed={one.seed}", *one.words, f"suite.seed={one.seed + FRESH}", "rollout.reward=filtered"]
        asked = ["--arm", arm, "--samples", one.samples, "--tasks", one.tasks, "--out", out, "--name", name]
        _ornith("eval", model, "--experiment", one.study.experiment, *words, *asked)
    elif known["samples"] != one.samples or known["tasks"] > one.tasks:
        where = out / "evals" / f"{name}.json"
        sys.exit(f"{where}: was made with other --tasks or --samples; give the same, or another --run")


def _say(began: float, what: str) -> None:
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    print(f"\n[{minutes:3}:{seconds:02}] {what}", flush=True)


def _ornith(*words: object) -> None:
    """One `ornith` command, as a person would type it; when it fails, so do we."""
    shown = [str(word) for word in words]
    print(f"$ ornith {' '.join(shown)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "ornith_jax.cli", *shown], check=False).returncode
    if code:
        sys.exit(code)
