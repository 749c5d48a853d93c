"""The whole loop on a bare machine: a small model learns which scaffold wins which task. `make quickstart`.

What it runs: drills and scripted, deliberately mediocre demonstrations of three categories of `fledgling` (the warm
start, experiments/school.py); a judge, trained and measured; held-out tasks before; self-scaffolding GRPO with real
sandboxes, real pytest and the three-layer filter; the same held-out tasks after; `report.html`.
On what, for how long: two CPU cores, no GPU, no network; 17 minutes. Ctrl-C, and the same command goes on.
What was seen: over three seeds, 27, 42 and 48 % of held-out tasks before, 70, 89 and 87 % after (docs/quickstart.md).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ornith_jax.experiment import Experiment, OptimSettings, TrainSettings
from rollout.settings import EngineSettings, RolloutSettings, SuiteSettings

CATEGORIES = ("traceback", "decoy", "state")
SHORT = ("suite.categories=traceback,state", "suite.count=160")
SHORT_LESSONS, SHORT_JUDGE = 500, 140  # updates
JUDGE_START_S = 120.0


def get_config() -> Experiment:
    """`model` is where `python -m experiments.quickstart` leaves the warm start."""
    return Experiment(
        name="quickstart",
        model="runs/quickstart/school/model",
        suite=SuiteSettings(path="fledgling", count=360, levels=(1,), categories=CATEGORIES, heldout=0.3),
        rollout=RolloutSettings(
            scaffolds_per_task=4,
            solutions_per_scaffold=2,
            scaffold_selection="softmax",
            fresh_share=0.5,
            scaffold_attempts=1,
            context_tokens=768,
            scaffold_tokens=192,
            turn_tokens=128,
            episode_tokens=768,
            max_turns=14,
            turn_s=60.0,
            episode_s=120.0,
            group_s=300.0,
            groups_in_flight=12,
            groups_per_step=8,
            max_staleness=2,
            warm_sandboxes=4,
        ),
        engine=EngineSettings(slots=8, max_len=768, dtype="float32"),
        optim=OptimSettings(learning_rate=5e-4, weight_decay=0.0, b2=0.95),
        train=TrainSettings(
            steps=26,
            seq_len=768,
            rows=4,
            remat="none",
            dtype="float32",
            param_dtype="float32",
            checkpoint_every=10,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments.quickstart", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"), help="the folder of everything")
    parser.add_argument("--seed", type=int, default=0, help="of tasks, weights and sampling")
    parser.add_argument("--steps", type=int, default=26, help="batches of reinforcement learning")
    parser.add_argument("--tasks", type=int, default=50, help="held-out tasks, evenly over the categories")
    parser.add_argument("--samples", type=int, default=2, help="of each held-out task")
    parser.add_argument("--sandbox", choices=("auto", "apptainer", "bubblewrap"), default="auto")
    parser.add_argument("--short", action="store_true", help="two categories, fewer lessons, a smaller judge")
    parser.add_argument("--judge", default="own", help="own, none, or the URL of an OpenAI-compatible endpoint")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    began = time.monotonic()
    run: Path = args.run
    words = [f"seed={args.seed}", f"suite.seed={args.seed}", f"rollout.sandbox={args.sandbox}"]
    words += list(SHORT) if args.short else []
    _say(began, "warm start: tokenizer, drills, demonstrations, lessons")
    _run("experiments.school", run / "school", *words, *(["--lessons", SHORT_LESSONS] if args.short else []))
    words.append(f"model={run / 'school' / 'model'}")
    trained = ["--seed", args.seed, *(["--updates", SHORT_JUDGE] if args.short else [])]
    with _judge(args.judge, run / "judge", trained, began) as judge:
        words += [*judge, f"train.steps={args.steps}"]
        asked = ["--samples", args.samples, "--tasks", args.tasks, "--out", run]
        model = run / "school" / "model"
        _say(began, "held-out tasks before")
        _ornith("eval", model, "--experiment", "quickstart", *words, *asked, "--name", "before")
        _say(began, "reinforcement learning")
        _ornith("train", "quickstart", *words, "--run", run)
        _say(began, "held-out tasks after")
        _ornith("eval", run, "--experiment", "quickstart", *words, *asked, "--name", "after")
    _ornith("compare", run / "evals" / "before.json", run / "evals" / "after.json")
    _ornith("report", run)
    _say(began, "done")


def _say(began: float, what: str) -> None:
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    print(f"\n[{minutes:2}:{seconds:02}] {what}", flush=True)


def _ornith(*words: object) -> None:
    """One `ornith` command, as a person would type it."""
    print(f"$ ornith {' '.join(map(str, words))}", flush=True)
    _run("ornith_jax.cli", *words)


def _run(module: str, *words: object) -> None:
    """What it says is shown; when it fails, so do we."""
    code = subprocess.run([sys.executable, "-m", module, *map(str, words)], check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def _judge(choice: str, folder: Path, trained: Sequence[object], began: float) -> Iterator[list[str]]:
    """The settings of a judge that answers for as long as the context is open."""
    if choice != "own":
        yield [f"rollout.judge={choice}"]
        return
    _say(began, "a judge: trained on honest and gaming work, measured on cases that it has not seen")
    _ornith("judge", "train", folder, *trained)
    card = folder / "serving.json"
    port = json.loads(card.read_text())["url"].split(":")[2].split("/")[0] if card.exists() else _free_port()
    card.unlink(missing_ok=True)
    serve = ["judge", "serve", str(folder / "model"), "--port", str(port), "--card", str(card)]
    server = subprocess.Popen([sys.executable, "-m", "ornith_jax.cli", *serve])
    try:
        until = time.monotonic() + JUDGE_START_S
        while not card.exists():
            if server.poll() is not None or time.monotonic() > until:
                sys.exit("the judge did not start; see above")
            time.sleep(0.1)
        found = json.loads(card.read_text())
        yield [f"rollout.judge={found['url']}", f"rollout.judge_model={found['model']}"]
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
