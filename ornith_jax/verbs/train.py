"""`ornith train`: learner, engines and driver together; or one of them alone, where others start the processes."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornith_jax.errors import OrnithError
from ornith_jax.verbs.config import add_experiment

if TYPE_CHECKING:
    from ornith_jax.experiment import Experiment


def add_parser(verbs: Any) -> None:
    verb = verbs.add_parser(
        "train", help="reinforcement learning: learner, engines and driver in one command; the same command goes on"
    )
    add_experiment(verb)
    verb.add_argument("--run", dest="run_dir", type=Path, required=True, metavar="DIR", help="the run directory")
    verb.add_argument("--role", choices=tuple(ROLES), help="one process alone (default: all of them, watched over)")
    verb.add_argument("--name", default="engine-0", help="of an engine: each has its own")
    verb.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from envs.errors import EnvError
    from ornith_jax.experiment import load
    from rollout.errors import EngineError, RolloutError

    experiment = load(args.experiment, args.overrides)
    try:
        if args.role is None:
            from ornith_jax.train.supervise import supervise

            supervise(experiment, [args.experiment, *args.overrides], args.run_dir)
        else:
            _settle()
            ROLES[args.role](experiment, args)
    except (RolloutError, EngineError, EnvError) as error:
        raise OrnithError(str(error)) from None


def _settle() -> None:
    """What every role begins with: stacks on SIGUSR1, a compilation cache, no more threads than help."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ornith-jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _learner(experiment: Experiment, args: argparse.Namespace) -> None:
    from ornith_jax.processes import join
    from ornith_jax.train.rl_loop import train_rl

    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt  # a second time: now
        asked.append(number)
        print("ornith: stopping after this batch, with a checkpoint", file=sys.stderr)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    join()
    train_rl(experiment, args.run_dir, stop=lambda: bool(asked))


def _engine(experiment: Experiment, args: argparse.Namespace) -> None:
    from ornith_jax.train.engine_role import run_engine

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run_engine(experiment, args.run_dir, args.name, stop)

    asyncio.run(serve())


def _driver(experiment: Experiment, args: argparse.Namespace) -> None:
    from rollout.chat.chat import load_chat
    from rollout.drive import drive, first_version
    from rollout.published import family_of
    from rollout.run_dir import EngineCard, Events, write_card
    from rollout.suite import load_suite
    from rollout.tier import open_tier

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        run = args.run_dir
        for at, url in enumerate(experiment.engine.urls):  # servers that others started write no card
            write_card(run, EngineCard(name=f"engine-{at}", url=url, kind=experiment.engine.kind))
        train, _ = await asyncio.to_thread(load_suite, experiment.suite)
        folder = await first_version(run)
        if not (folder / "tokenizer.json").is_file():
            raise OrnithError(f"{folder}: no tokenizer.json; put the model's tokenizer files beside its weights")
        chat = await asyncio.to_thread(load_chat, folder, family_of(folder))
        async with open_tier(run, experiment.engine.dtype, Events(run, "tier")) as tier:
            await drive(
                run,
                train,
                tier,
                chat,
                experiment.rollout,
                experiment.sampling,
                seed=experiment.seed,
                steps=experiment.train.steps,
                check=tier.raise_failure,
            )

    try:
        asyncio.run(serve())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


ROLES = {"learner": _learner, "engine": _engine, "driver": _driver}
