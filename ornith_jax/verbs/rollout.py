"""`ornith rollout | show | export-trajectories`: make trajectories, look at them, give them to others."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornith_jax.errors import OrnithError
from ornith_jax.verbs.config import add_experiment

if TYPE_CHECKING:
    from envs.types import Task
    from ornith_jax.experiment import Experiment
    from rollout.chat.types import Chat
    from rollout.engine import Engine

OUTCOMES = ("passed", "failed", "flagged", "vetoed")


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser("rollout", help="run episodes against an engine and store them; goes on where it stopped")
    add_experiment(verb)
    verb.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run directory", dest="folder")
    verb.add_argument("--engine", choices=tuple(ENGINES), help="default: the experiment's; scripted needs no model")
    verb.add_argument("--tasks", type=int, help="tasks to draw in all (default: every training task once)")
    verb.add_argument("--weights", type=Path, help="a Hugging Face folder, a checkpoint or a published version")
    verb.set_defaults(run=_rollout)

    verb = verbs.add_parser("show", help="a stored trajectory: turns, calls, verdict and evidence; without one, a list")
    verb.add_argument("folder", type=Path, metavar="RUN", help="a run directory")
    verb.add_argument("trajectory", nargs="?", help="an id, or a part of one")
    verb.add_argument("--full", action="store_true", help="messages without a cut")
    verb.set_defaults(run=_show)

    verb = verbs.add_parser("export-trajectories", help="conversations that others train on, as .jsonl or .parquet")
    verb.add_argument("folder", type=Path, metavar="RUN", help="a run directory")
    verb.add_argument("out", type=Path, help="a new .jsonl or .parquet file")
    verb.add_argument("--only", choices=OUTCOMES, default="", help="solutions of one outcome, and no scaffolds")
    verb.set_defaults(run=_export)


def _rollout(args: argparse.Namespace) -> None:
    from envs.errors import EnvError
    from ornith_jax.experiment import load
    from rollout.errors import EngineError, RolloutError
    from rollout.suite import load_suite

    experiment = load(args.experiment, args.overrides)
    try:
        train, _ = load_suite(experiment.suite)
        print(asyncio.run(_collect(args, experiment, train)))
    except (RolloutError, EngineError, EnvError) as error:
        raise OrnithError(str(error)) from None


async def _collect(args: argparse.Namespace, experiment: Experiment, tasks: list[Task]) -> str:
    from rollout.collect import collect

    engine, chat = await ENGINES[args.engine or experiment.engine.kind](args, experiment, tasks)
    try:
        tally = await collect(
            args.folder,
            tasks,
            engine,
            chat,
            experiment.rollout,
            experiment.sampling,
            seed=experiment.seed,
            groups=args.tasks or len(tasks),
        )
    finally:
        await engine.close()
    return f"{tally.groups} groups and {tally.episodes} episodes of this start are in {args.folder / 'trajectories'}"


async def _scripted(args: argparse.Namespace, experiment: Experiment, tasks: list[Task]) -> tuple[Engine, Chat]:
    from rollout.chat import train_tokenizer
    from rollout.chat.chat import load_chat
    from rollout.expert import expert_script
    from rollout.scripted import ScriptedEngine

    folder = args.weights or args.folder / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        await asyncio.to_thread(lambda: train_tokenizer.save(train_tokenizer.train(), folder))
    chat = load_chat(folder, "qwen3_5")
    return ScriptedEngine(chat, expert_script(chat, tasks, experiment.rollout)), chat


async def _embedded(args: argparse.Namespace, experiment: Experiment, tasks: list[Task]) -> tuple[Engine, Chat]:
    from ornith_jax.convert.load import load
    from ornith_jax.serve.engine import EmbeddedEngine

    folder = args.weights or Path(experiment.model)
    if not folder.is_dir():
        raise OrnithError(f"{folder}: no such folder; name one with --weights")
    cfg, params = await asyncio.to_thread(load, folder)
    engine = EmbeddedEngine(cfg, experiment.engine)
    await engine.update_params(params, _version(folder))
    return engine, _chat(folder, cfg.family)


async def _sglang(args: argparse.Namespace, experiment: Experiment, tasks: list[Task]) -> tuple[Engine, Chat]:
    from ornith_jax.models.registry import config_from_hf
    from rollout.sglang.replicas import Replicas, connecting

    urls = experiment.engine.urls
    if not urls or args.weights is None:
        raise OrnithError(
            "sglang: start servers with `ornith serve MODEL --engine sglang`, name them with engine.urls=URL,URL, and "
            "name the published version that they shall load with --weights RUN/weights/v0000000"
        )
    chat = _chat(args.weights, config_from_hf(args.weights).family)
    engine = await Replicas.start([connecting(url, drop_seeds=True) for url in urls])
    await engine.update_weights(args.weights, _version(args.weights))
    return engine, chat


ENGINES = {"embedded": _embedded, "sglang": _sglang, "scripted": _scripted}


def _version(folder: Path) -> int:
    """The number of a published version; 0 for any other folder."""
    from rollout.published import NAME

    match = NAME.fullmatch(folder.name)
    return int(match[1]) if match else 0


def _chat(folder: Path, family: str) -> Chat:
    from rollout.chat.chat import load_chat

    found = next((place for place in (folder, folder / "hf") if (place / "tokenizer.json").is_file()), None)
    if found is None:
        raise OrnithError(f"{folder}: no tokenizer.json; put the model's tokenizer files beside its weights")
    return load_chat(found, family)


def _show(args: argparse.Namespace) -> None:
    from rollout.errors import RolloutError
    from rollout.show import lines, show
    from rollout.store.reader import Trajectories

    try:
        source = Trajectories(args.folder / "trajectories")
        print(show(source.find(args.trajectory), full=args.full) if args.trajectory else "\n".join(lines(source)))
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    for line in source.damaged:
        print(f"left out, damaged: {line}")


def _export(args: argparse.Namespace) -> None:
    from rollout.errors import RolloutError
    from rollout.export import export
    from rollout.store.reader import Trajectories

    try:
        source = Trajectories(args.folder / "trajectories")
        count = export(source, args.out, only=args.only)
    except RolloutError as error:
        raise OrnithError(str(error)) from None
    print(f"{count} conversations of {len(source)} trajectories -> {args.out}")
    for line in source.damaged:
        print(f"left out, damaged: {line}")
