"""`ornith eval | compare`: how often a model passes, with intervals and by category; and whether two differ."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornith_jax.errors import OrnithError

if TYPE_CHECKING:
    from envs.types import Task
    from ornith_jax.experiment import Experiment
    from rollout.chat.types import Chat
    from rollout.engine import Engine
    from rollout.statistics import Estimate

ARMS = ("self", "fixed", "none")
SPLITS = ("heldout", "train", "all")
ASKED = ("arm", "samples", "policy_version", "sampling", "rollout", "library", "seed")


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser(
        "eval",
        help="pass@1 and pass@k of a model with intervals, by category; goes on where it stopped",
        description="Plays tasks x samples episodes and writes OUT/evals/NAME.json. Budgets, prompts and suite are "
        "those of the experiment.",
    )
    verb.add_argument("model", type=Path, metavar="CKPT", help="a run, published version, checkpoint or HF folder")
    verb.add_argument("overrides", nargs="*", metavar="field=value", help="of the experiment")
    verb.add_argument(
        "--experiment", nargs="+", metavar=("EXPERIMENT", "field=value"), help="default: that of the run CKPT is in"
    )
    verb.add_argument("--suite", help="short for suite.path=...")
    verb.add_argument("--arm", choices=ARMS, help="who writes the scaffold (default: rollout.arm)")
    verb.add_argument("--samples", type=int, default=4, help="of each task (default 4)")
    verb.add_argument("--split", choices=SPLITS, default="heldout")
    verb.add_argument("--tasks", type=int, help="so many tasks, evenly over the categories (default: all)")
    verb.add_argument(
        "--engine", help="embedded, sglang, or the URL of an OpenAI-compatible server (default: engine.kind)"
    )
    verb.add_argument("--served-model", default="", help="with a URL: the model's name there (default: the first)")
    verb.add_argument(
        "--library", type=Path, metavar="RUN", help="proposals start from its scaffolds, not from nothing"
    )
    verb.add_argument("--out", type=Path, metavar="DIR", help="a run directory (default: that of CKPT)")
    verb.add_argument("--name", help="of the result (default: CKPT-ARM, and the split if it is not heldout)")
    verb.set_defaults(run=_eval)

    verb = verbs.add_parser("compare", help="two evaluations on the same tasks: the paired difference, by category")
    verb.add_argument("before", type=Path, metavar="A.json")
    verb.add_argument("after", type=Path, metavar="B.json")
    verb.set_defaults(run=_compare)


def _eval(args: argparse.Namespace) -> None:
    from envs.errors import EnvError
    from rollout.errors import EngineError, RolloutError
    from rollout.evaluate import check, spread
    from rollout.suite import load_suite

    place, run = locate(args.model)
    out = args.out or run
    if out is None:
        raise OrnithError(f"{args.model} is in no run: name a folder for the results with --out")
    experiment = _experiment(args, run)
    arm = args.arm or experiment.rollout.arm.value
    split = "" if args.split == "heldout" else f"-{args.split}"
    name = args.name or re.sub(r"[^A-Za-z0-9._-]", "_", f"{place.resolve().name}-{arm}{split}")
    try:
        train, heldout = load_suite(experiment.suite)
        tasks = spread({"heldout": heldout, "train": train, "all": train + heldout}[args.split], args.tasks)
        check(name, tasks, args.samples, args.library)
        found = asyncio.run(_evaluate(args, experiment, tasks, place, out, name, arm))
    except (RolloutError, EngineError, EnvError) as error:
        raise OrnithError(str(error)) from None
    print(table(found))
    print(f"-> {out / 'evals' / name}.json")


async def _evaluate(
    args: argparse.Namespace, experiment: Experiment, tasks: list[Task], place: Path, out: Path, name: str, arm: str
) -> dict[str, Any]:
    from rollout.evaluate import evaluate
    from rollout.types import Arm

    engine, chat = await _engine(args, experiment, tasks, place, out)
    try:
        return await evaluate(
            out,
            name,
            tasks,
            engine,
            chat,
            experiment.rollout,
            experiment.sampling,
            arm=Arm(arm),
            samples=args.samples,
            seed=experiment.seed,
            library=args.library,
        )
    finally:
        await engine.close()


async def _engine(
    args: argparse.Namespace, experiment: Experiment, tasks: list[Task], place: Path, out: Path
) -> tuple[Engine, Chat]:
    from ornith_jax.verbs.rollout import ENGINES, _chat, _version

    kind = args.engine or experiment.engine.kind
    if "://" not in kind:
        if kind not in ("embedded", "sglang"):
            raise OrnithError(f"--engine: {kind!r} is not embedded, sglang or a URL such as http://host:8000")
        return await ENGINES[kind](argparse.Namespace(weights=place, folder=out), experiment, tasks)
    from ornith_jax.convert import manifest
    from ornith_jax.models.registry import config_from_hf
    from rollout.openai_engine import OpenAIEngine

    cfg = manifest.read_manifest(place).config if manifest.is_checkpoint(place) else config_from_hf(place)
    chat = _chat(place, cfg.family)
    token = os.environ.get("OPENAI_API_KEY", "")
    version = _version(place)
    return await OpenAIEngine.connect(kind, model=args.served_model, policy_version=version, token=token), chat


def locate(model: Path) -> tuple[Path, Path | None]:
    """(the folder with the weights, the run it is in or None). A run stands for its newest published version."""
    from rollout.published import NAME, newest

    if (model / "weights").is_dir():
        found = newest(model / "weights")
        if found is None:
            raise OrnithError(f"{model / 'weights'}: no version is published yet")
        return found[1], model
    if not model.is_dir():
        raise OrnithError(f"{model}: no such folder; give a run, a published version, a checkpoint or an HF folder")
    absolute = model.resolve()
    in_run = absolute.parent.name == "weights" and NAME.fullmatch(absolute.name)
    return model, absolute.parent.parent if in_run else None


def _experiment(args: argparse.Namespace, run: Path | None) -> Experiment:
    from ornith_jax.experiment import from_json, load
    from ornith_jax.overrides import override

    overrides = [*args.overrides, *([] if args.suite is None else [f"suite.path={args.suite}"])]
    if args.experiment:
        return load(args.experiment[0], [*args.experiment[1:], *overrides])
    config = None if run is None else run / "config.json"
    if config is None or not config.is_file():
        raise OrnithError(f"{args.model}: no run with a config.json; name the experiment with --experiment")
    return override(from_json(config.read_text()), overrides)


def _compare(args: argparse.Namespace) -> None:
    from rollout.errors import RolloutError
    from rollout.outcomes import compare

    try:
        before, after = _read(args.before), _read(args.after)
        rows = compare(before, after)
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    differ = [f"{field} {before[field]} -> {after[field]}" for field in ASKED if before[field] != after[field]]
    print(f"{after['name']} minus {before['name']}, pass@1 in points, paired by task")
    print("differ in: " + ("; ".join(differ) or "nothing that was asked"))
    lines = [("category", "tasks", "difference")]
    lines += [(name, str(tasks), _points(change, "+.1f")) for name, tasks, change in rows]
    print(_columns(lines))


def _read(path: Path) -> dict[str, Any]:
    from rollout.run_dir import read_json

    found = read_json(path)
    if found is None:
        raise OrnithError(f"{path}: no such file; `ornith eval` writes RUN/evals/NAME.json")
    missing = [field for field in ("name", "per_task", "by_category", *ASKED) if field not in found]
    if missing:
        raise OrnithError(f"{path}: has no {missing[0]!r}; it is no result of `ornith eval`")
    return found


def table(found: Mapping[str, Any]) -> str:
    """A result for people: rates in percent with their 95% intervals, of all tasks and by category."""
    from rollout.statistics import Estimate

    ks = [field for field in found if field.startswith("pass@")]
    lines = [("category", "tasks", "samples", *ks)]
    per_task = found["per_task"].values()
    rows = [("all", len(per_task), sum(n for _, n in per_task), found)]
    for name, one in found["by_category"].items():
        rows.append((name, len(one["task_ids"]), one["n"], {**one, "pass@1": one}))
    for name, tasks, samples, values in rows:
        cells = [values.get(k) for k in ks]
        rates = [_points(Estimate(c["value"], c["low"], c["high"]), ".1f") if c else "-" for c in cells]
        lines.append((name, str(tasks), str(samples), *rates))
    infra, tokens = found["infra"], found["tokens"]
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in found["outcomes"].items())
    stops = ", ".join(f"{stop} {count}" for stop, count in found["stops"].items())
    causes = ", ".join(f"{cause} {count}" for cause, count in infra["causes"].items())
    return "\n".join(
        [
            f"{found['name']}: arm {found['arm']}, policy version {found['policy_version']}, "
            f"{found['samples']} samples of {found['tasks']} tasks in {found['seconds']:.0f} s",
            f"{outcomes} (ended by {stops})",
            f"{tokens['sampled']:,} tokens sampled, {tokens['scaffold']:,} of them in scaffolds",
            *(
                [f"failures of ours: {infra['episodes']} ({causes}); {infra['missing']} samples missing"]
                if causes
                else []
            ),
            _columns(lines),
        ]
    )


def _points(estimate: Estimate, form: str) -> str:
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _columns(lines: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )
