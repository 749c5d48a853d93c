"""The warm start of the quickstart: a small model learns both stages' form from scripted, mediocre demonstrations.

    python -m experiments.school FOLDER [--lessons N] [field=value ...]      # FOLDER/model is the policy to improve

    tokenizer ─► drills (repeat what stands above) ─► demonstrations, played in real sandboxes ─► a policy to improve

Each part lies in a folder of its own and is skipped when it is there, so the same call goes on after an interruption.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer

from envs.suites.split import content_hash
from envs.tools import schemas
from envs.types import Episode, Outcome, Task, Verdict
from ornith_jax.config import AttentionConfig, GatedDeltaConfig, ModelConfig
from ornith_jax.convert.save_hf import save_hf
from ornith_jax.experiment import Experiment, OptimSettings, TrainSettings, load
from ornith_jax.models import decoder
from ornith_jax.params import init
from ornith_jax.train.loop import train_sft
from rollout.agent.words import system_words
from rollout.chat import qwen3_5, train_tokenizer
from rollout.chat.chat import load_chat
from rollout.chat.pieces import Pieces
from rollout.chat.types import Reply
from rollout.collect import collect
from rollout.demonstrate import Habits, demonstrator
from rollout.demonstrate import lessons as lessons_of
from rollout.published import newest
from rollout.scaffold.defaults import bare_scaffold, default_scaffold
from rollout.scaffold.document import bounds_of
from rollout.scaffold.prompt import proposal_prompt
from rollout.scripted import ScriptedEngine
from rollout.settings import RolloutSettings, SamplingSettings, SuiteSettings
from rollout.store.reader import Trajectories
from rollout.strategies import STRATEGIES, calls_under, scaffold_of
from rollout.suite import load_suite
from rollout.types import Arm, Stage

VOCAB_SIZE = 1536
DRILLS, LESSONS = 800, 1000  # updates; copying comes all at once, after 450 to 600 drills at a constant rate
LESSONS_SEED, LESSON_TASKS = 500, 2.5  # of the demonstrations: added to suite.seed; times suite.count
SELF = {Arm.SELF: 0.5}  # shares of those tasks that are shown under each arm; the rest is for practice
EVERY_ARM = {Arm.SELF: 0.5, Arm.FIXED: 0.15, Arm.NONE: 0.15}
PRACTICE, ENOUGH = "practice", (4, 6, 8, 12)  # its folder, and the turns that its scaffolds allow


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments.school", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="of the experiment quickstart")
    parser.add_argument("--lessons", type=int, default=LESSONS, help="updates on the demonstrations")
    args = parser.parse_intermixed_args()
    experiment = load("quickstart", args.overrides)
    print(warm_start(args.folder, lesson_tasks(experiment.suite), experiment, lessons=args.lessons))


def lesson_tasks(suite: SuiteSettings) -> list[Task]:
    """Tasks that no run of this suite trains on or is measured on.

    What was demonstrated on a task is soon known by heart: there, all scaffolds of a group would be the same one.
    """
    own = {content_hash(task) for part in load_suite(suite) for task in part}
    others = replace(suite, seed=suite.seed + LESSONS_SEED, count=round(LESSON_TASKS * suite.count))
    return [task for part in load_suite(others) for task in part if content_hash(task) not in own]


def warm_start(
    folder: Path,
    tasks: Sequence[Task],
    experiment: Experiment,
    *,
    habits: Habits | None = None,
    shares: Mapping[Arm, float] = SELF,
    lessons: int = LESSONS,
) -> Path:
    """`folder`/model, which has learned the form in so many updates; made if it is not there yet.

    Which scaffold to write is shown as the habits have it. To work well under one that fits takes more examples: the
    rest of the tasks is played under such scaffolds, and only the work is learned (`PRACTICE`).
    What an arm is not shown, it cannot do: a warm start for the controls needs `EVERY_ARM`, and is a little worse.
    """
    if (folder / "model").exists():
        return folder / "model"
    seed, habits = experiment.seed, habits or Habits(seed=experiment.seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, start = folder / "tokenizer", folder / "start"
    if not tokenizer.exists():
        train_tokenizer.save(_tokenizer(tasks, experiment.rollout), tokenizer)
    vocab_size = load_chat(tokenizer, "qwen3_5").tokenizer.hf.get_vocab_size()  # type: ignore[attr-defined]
    if not start.exists():
        _random_model(start, vocab_size, tokenizer, seed)
    drills, demos = folder / "drills.npz", folder / "demonstrations.npz"
    if not drills.exists():
        _save(drills, drill_sequences(vocab_size, DRILLS * 32, seed))
    drilled = _sft(folder / "drill", start, drills, experiment, steps=DRILLS, seq_len=256, rows=4, decay=False)
    if not demos.exists():
        asyncio.run(_demonstrate(folder, tokenizer, tasks, experiment, habits, shares))
        _save(demos, _lessons(folder, shares))
    learned = _sft(folder / "lessons", drilled, demos, experiment, steps=lessons, seq_len=768, rows=2, decay=True)
    (folder / "model").symlink_to(learned.relative_to(folder))
    return folder / "model"


def config(vocab_size: int) -> ModelConfig:
    """0.6M parameters: one layer of the gated delta rule, one of attention."""
    attention = AttentionConfig(
        num_heads=2,
        num_kv_heads=2,
        head_dim=64,
        rope_theta=1e4,
        rotary_dim=64,
        rotary_pairs=32,
        scale=64**-0.5,
        output_gate=True,
        zero_centered_norm=True,
    )
    delta = GatedDeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=32, value_dim=32)
    return ModelConfig(
        family="qwen3_5",
        vocab_size=vocab_size,
        embed_dim=128,
        num_layers=2,
        period=(delta, attention),
        ffw_dim=384,
        tie_embeddings=True,
        max_positions=2048,
        dtype="float32",
    )


def drill_sequences(vocab_size: int, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(token ids, loss mask) of 32 tokens: two random phrases in turn; what came before is to be said again.

    A model that has learned this copies names out of its context; without it, it would need far longer to find out.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        phrases = [rng.integers(0, vocab_size, rng.integers(3, 8)) for _ in range(2)]
        ids: list[int] = []
        mask: list[bool] = []
        said: set[int] = set()
        while len(ids) < 32:
            chosen = int(rng.integers(2))
            ids += phrases[chosen].tolist()
            mask += [False] + [chosen in said] * (len(phrases[chosen]) - 1)
            said.add(chosen)
        yield np.array(ids[:32], np.int32), np.array(mask[:32])


def _tokenizer(tasks: Sequence[Task], settings: RolloutSettings) -> Tokenizer:
    """Fixed lines of prompts and calls are one token each; what a strategy says is not, it is to be written."""
    lines = train_tokenizer.fixed_lines(list(_texts(tasks[:150], settings)))
    said = tuple(strategy.instructions for strategy in STRATEGIES.values())
    phrases = [line for line in lines if not any(words in line for words in said)]
    return train_tokenizer.train(VOCAB_SIZE, split=train_tokenizer.PLAIN_SPLIT, phrases=phrases)


def _texts(tasks: Sequence[Task], settings: RolloutSettings) -> Iterator[Pieces]:
    for task in tasks:
        bounds = bounds_of(task, settings)
        yield qwen3_5.opening(*proposal_prompt(task, bounds, None), (), thinking=True)
        for name in STRATEGIES:
            scaffold = scaffold_of(name, bounds, 4)
            shown = schemas(replace(task, tools=scaffold.orchestration.phases[0].tools))
            said = [qwen3_5.completion(Reply("", "", (call,), ""), [qwen3_5.THINK]) for call in calls_under(name, task)]
            opening = qwen3_5.opening(system_words(task, bounds, scaffold), task.prompt, shown, thinking=True)
            yield [*opening, *(piece for pieces in said for piece in pieces)]
        for scaffold in (default_scaffold(bounds), bare_scaffold(bounds)):
            yield qwen3_5.opening(system_words(task, bounds, scaffold), task.prompt, schemas(task), thinking=True)


def _random_model(folder: Path, vocab_size: int, tokenizer: Path, seed: int) -> None:
    cfg = config(vocab_size)
    part = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(part, ignore_errors=True)
    files = {path.name: path.read_bytes() for path in tokenizer.iterdir()}
    save_hf(init(decoder.table(cfg), jax.random.key(seed), cfg.dtype), cfg, part, side_files=files)
    part.rename(folder)


async def _demonstrate(
    folder: Path,
    tokenizer: Path,
    tasks: Sequence[Task],
    experiment: Experiment,
    habits: Habits,
    shares: Mapping[Arm, float],
) -> None:
    """Real episodes in real sandboxes. Nobody learns from their outcome, so they are not graded."""
    chat = load_chat(tokenizer, "qwen3_5")
    parts = {arm.value: (arm, tasks[: max(1, round(share * len(tasks)))], habits) for arm, share in shares.items()}
    shown = max(len(part) for _, part, _ in parts.values())
    parts[PRACTICE] = (Arm.SELF, tasks[shown:], Habits(insight=1.0, turns=ENOUGH, seed=habits.seed))
    for name, (arm, part, how) in parts.items():
        settings = replace(
            experiment.rollout, arm=arm, scaffolds_per_task=1, solutions_per_scaffold=1, max_staleness=0, judge="none"
        )
        engine = ScriptedEngine(chat, demonstrator(chat, part, settings, how))
        await collect(
            folder / name,
            part,
            engine,
            chat,
            settings,
            SamplingSettings(),
            seed=experiment.seed,
            groups=len(part),
            grade=_ungraded,
        )


async def _ungraded(episode: Episode) -> Verdict:
    return Verdict(outcome=Outcome.FAILED, record={"grade": "a demonstration"})


def _lessons(folder: Path, arms: Iterable[Arm]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for name in (*(arm.value for arm in arms), PRACTICE):
        played = Trajectories(folder / name / "trajectories")
        for sequence in lessons_of(played[index] for index in range(len(played))):
            if name != PRACTICE or sequence.stage is Stage.SOLUTION:
                yield sequence.token_ids, sequence.loss_mask


def _save(path: Path, sequences: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    found = list(sequences)
    part = path.with_name(f".{path.name}.partial.npz")
    np.savez(
        part,
        token_ids=np.concatenate([ids for ids, _ in found]).astype(np.int32),
        loss_mask=np.concatenate([mask for _, mask in found]),
        lengths=np.array([len(ids) for ids, _ in found]),
    )
    part.rename(path)


def _sft(
    run: Path, model: Path, data: Path, experiment: Experiment, *, steps: int, seq_len: int, rows: int, decay: bool
) -> Path:
    """Supervised training, unless it is done; the published folder."""
    if (found := newest(run / "weights")) is None:
        settings = replace(
            experiment,
            name=run.name,
            model=str(model),
            optim=OptimSettings(
                learning_rate=3e-3,
                warmup_steps=20,
                decay_steps=steps if decay else 0,
                final_fraction=0.05,
                weight_decay=0.01,
            ),
            train=TrainSettings(
                steps=steps,
                seq_len=seq_len,
                rows=rows,
                remat="none",
                dtype="float32",
                param_dtype="float32",
                checkpoint_every=200,
            ),
        )
        train_sft(settings, data, run)
        found = newest(run / "weights")
    assert found is not None
    return found[1]


if __name__ == "__main__":
    main()
