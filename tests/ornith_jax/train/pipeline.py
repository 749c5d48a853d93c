"""Learner, driver and engine of a run in one process: real but for the episodes, which write random text for a reward.

The learner has a thread, the driver and the engine's server the event loop. What the plain synchronous loop does is
`plain`: generate all groups of a batch, update, load, repeat.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from aiohttp import web

from envs.types import Outcome, Task, Verdict, Verification
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.experiment import Experiment, OptimSettings, TrainSettings
from ornith_jax.models.decoder import table
from ornith_jax.params import init
from ornith_jax.rl.metrics import metrics as loss_metrics
from ornith_jax.rl.pack import pack
from ornith_jax.rl.samples import make_samples
from ornith_jax.serve.engine import EmbeddedEngine
from ornith_jax.serve.http import Server
from ornith_jax.train import rl_loop, state
from ornith_jax.train.publish import publish
from ornith_jax.train.state import first_state
from ornith_jax.train.step import make_step, put_batches
from rollout.admission import draws
from rollout.drive import drive_episodes
from rollout.engine import Engine
from rollout.run_dir import EngineCard, Events, write_card
from rollout.settings import EngineSettings, RolloutSettings
from rollout.tier import open_tier
from rollout.types import Arm, Group, Proposal, Sampling, Stage, StopReason, Trajectory, Turn
from tests.ornith_jax.train.tiny import DENSE

SCAFFOLDS, SOLUTIONS, PER_STEP = 2, 2, 2
DEADLINE_S = 240


def small(folder: Path, **changes: Any) -> Experiment:
    """An experiment on a tiny random model in `folder`. `changes`: steps, staleness, checkpoint_every.

    The engine runs one request at a time: which others run beside it moves log-probabilities in their last bits.
    """
    model = folder / "model"
    if not model.exists():
        save_hf(init(table(DENSE), jax.random.key(0), "float32"), DENSE, model)
    return Experiment(
        name="pipeline",
        model=str(model),
        rollout=RolloutSettings(
            scaffolds_per_task=SCAFFOLDS,
            solutions_per_scaffold=SOLUTIONS,
            groups_in_flight=4,
            groups_per_step=PER_STEP,
            max_staleness=changes.get("staleness", 0),
            context_tokens=32,
            scaffold_tokens=8,
            turn_tokens=8,
            episode_tokens=32,
        ),
        engine=EngineSettings(slots=1, max_len=64, dtype="float32"),
        optim=OptimSettings(learning_rate=1e-2),
        train=TrainSettings(
            steps=changes.get("steps", 4),
            seq_len=32,
            rows=2,
            remat="none",
            dtype="float32",
            checkpoint_every=changes.get("checkpoint_every", 2),
        ),
    )


def tasks() -> list[Task]:
    return [
        Task(
            id=f"task {n}",
            source="pipeline",
            category=f"c{n % 2}",
            prompt="p",
            verification=Verification(kind="pytest"),
        )
        for n in range(5)
    ]


class Written:
    """Implements `Episodes`: a scaffold and a solution of two turns, sampled from the engine; the tokens decide."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def propose(self, task: Task, *, group_id: str, scaffold_index: int, admitted_version: int) -> Proposal:
        turn = await self._turn(Stage.SCAFFOLD, (), f"{group_id}/{scaffold_index}")
        return Proposal(
            group_id=group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=scaffold_index,
            arm=Arm.SELF,
            turns=(turn,),
            scaffold_id="s",
            scaffold="{}",
            admitted_version=admitted_version,
        )

    async def solve(self, task: Task, proposal: Proposal, solution_index: int) -> Trajectory:
        id = f"{proposal.id}/{solution_index}"
        first = await self._turn(Stage.SOLUTION, (), f"{id}/first")
        second = await self._turn(Stage.SOLUTION, (*first.prompt_ids, *first.completion.token_ids), f"{id}/second")
        passed = sum(second.completion.token_ids) % 3 == 0
        return Trajectory(
            id=id,
            group_id=proposal.group_id,
            task_id=task.id,
            category=task.category,
            scaffold_index=proposal.scaffold_index,
            solution_index=solution_index,
            arm=Arm.SELF,
            turns=(*proposal.turns, first, second),
            scaffold_id="s",
            scaffold="{}",
            stop=StopReason.SUBMITTED,
            verdict=Verdict(outcome=Outcome.PASSED if passed else Outcome.FAILED),
            admitted_version=proposal.admitted_version,
        )

    async def _turn(self, stage: Stage, before: tuple[int, ...], key: str) -> Turn:
        draw = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
        prompt = (*before, *draw.integers(1, DENSE.vocab_size, 4).tolist())
        sampling = Sampling(max_new_tokens=int(draw.integers(2, 8)), seed=int(draw.integers(1 << 31)))
        completion = await self._engine.generate(prompt, sampling, deadline_s=DEADLINE_S)
        return Turn(stage=stage, prompt_ids=prompt, completion=completion)


@functools.cache
def step_of(experiment: Experiment) -> Any:
    """The jitted step, compiled once for all learners of one experiment."""
    return make_step(DENSE, experiment, state.mesh_of(experiment, jax.devices()[:1]))


def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' eight devices would make the learner's mesh; here it has one, like the engine."""
    monkeypatch.setattr(rl_loop, "make_step", lambda cfg, experiment, mesh: step_of(relaxed(experiment, steps=1)))
    monkeypatch.setattr(rl_loop, "mesh_of", lambda experiment: state.mesh_of(experiment, jax.devices()[:1]))
    monkeypatch.setattr(rl_loop.jax, "device_count", lambda: 1)


@asynccontextmanager
async def served(run: Path, experiment: Experiment, name: str = "engine-0"):
    """An engine behind its HTTP server, with a card in the run directory."""
    engine = EmbeddedEngine(DENSE, experiment.engine)
    runner = web.AppRunner(Server(engine, name).app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_card(run, EngineCard(name=name, url=f"http://127.0.0.1:{runner.addresses[0][1]}", pid=os.getpid()))
    try:
        yield engine
    finally:
        await runner.cleanup()
        await engine.close()


async def driving(run: Path, experiment: Experiment) -> None:
    async with open_tier(run, experiment.engine.dtype, Events(run, "tier")) as tier:
        await drive_episodes(
            run,
            tasks(),
            tier,
            Written(tier),
            experiment.rollout,
            seed=experiment.seed,
            steps=experiment.train.steps,
            check=tier.raise_failure,
        )


def together(run: Path, experiment: Experiment) -> Any:
    """Both sides to the end; the learner's last state."""
    stopping = threading.Event()

    async def both():
        async with asyncio.timeout(DEADLINE_S), served(run, experiment):
            learning = asyncio.create_task(asyncio.to_thread(rl_loop.train_rl, experiment, run, stop=stopping.is_set))
            try:
                await asyncio.gather(learning, driving(run, experiment))
            finally:
                stopping.set()
                await asyncio.wait([learning])
            return learning.result()

    return asyncio.run(both())


def plain(folder: Path, experiment: Experiment) -> tuple[list[dict[str, float]], Any]:
    """The synchronous loop, as plainly as it can be written; (a record of each batch, the last state)."""
    mesh = state.mesh_of(experiment, jax.devices()[:1])
    learner, step = first_state(DENSE, experiment, mesh), step_of(relaxed(experiment, steps=1))
    drawn, records = draws(tasks(), experiment.seed), []

    async def generate(engine: Engine) -> list[Group]:
        groups = []
        for _ in range(PER_STEP):
            task, id = next(drawn)
            members = []
            for n in range(SCAFFOLDS):
                proposal = await Written(engine).propose(task, group_id=id, scaffold_index=n, admitted_version=0)
                members += [await Written(engine).solve(task, proposal, k) for k in range(SOLUTIONS)]
            groups.append(Group(id=id, task_id=task.id, category=task.category, trajectories=tuple(members)))
        return groups

    async def loop(learner: Any) -> Any:
        engine = EmbeddedEngine(DENSE, experiment.engine)
        for _ in range(experiment.train.steps):
            version = int(learner.step)
            await engine.update_weights(publish(learner.params, DENSE, folder / "weights", version), version)
            groups = await generate(engine)
            samples, counts = make_samples(groups, experiment, version)
            packed = pack(samples, rows=experiment.train.rows, seq_len=experiment.train.seq_len)
            learner, found = step(learner, put_batches(packed.batch, mesh))
            rewards = [member.verdict.reward for group in groups for member in group.trajectories]
            record = loss_metrics(jax.device_get(found["sums"])) | {"reward/mean": float(np.mean(rewards))}
            record |= {"optim/grad_norm": float(found["optim/grad_norm"])}
            records.append(record | {name: float(count) for name, count in counts.items()})
        await engine.close()
        return learner

    return records, asyncio.run(loop(learner))


def same_weights(one: Any, other: Any) -> None:
    """To the bit, optimizer included."""
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def relaxed(experiment: Experiment, **train: Any) -> Experiment:
    return replace(experiment, train=replace(experiment.train, **train))
