"""Random trajectories with everything that a real one can hold."""

import random

from envs.types import Finding, Layer, Outcome, Verdict
from rollout.types import Arm, Completion, Finish, Stage, StopReason, Trajectory, Turn

WORDS = ("def", "π", "\n", "\x00", "🐦", "\ud800", '"', "\\", "</tool_call>", " ", "é")


def single(value: float) -> float:
    """The nearest float32: what the log keeps of a log-probability."""
    import numpy as np

    return float(np.float32(value))


def completion(rng: random.Random, tokens: int, experts: bool = False) -> Completion:
    cut = rng.randrange(1, tokens) if tokens > 1 else 0
    return Completion(
        token_ids=tuple(rng.randrange(250_000) for _ in range(tokens)),
        behavior_logprobs=tuple(single(-rng.expovariate(1)) for _ in range(tokens)),
        versions=((0, 4), (cut, 5)) if cut else ((0, 4),) if tokens else (),
        finish=rng.choice(list(Finish)),
        routed_experts=rng.randbytes(64) if experts else b"",
        cached_tokens=rng.randrange(9),
        seconds=rng.random(),
    )


def turns(rng: random.Random, count: int, tokens: int = 20) -> tuple[Turn, ...]:
    """Most prompts extend the turn before, some fork somewhere inside it, some start anew."""
    found: list[Turn] = []
    before: tuple[int, ...] = ()
    for place in range(count):
        kept = rng.choice((len(before), len(before), len(before), rng.randrange(len(before) + 1), 0))
        prompt = before[:kept] + tuple(rng.randrange(250_000) for _ in range(rng.randrange(tokens)))
        found.append(
            Turn(
                stage=Stage.SCAFFOLD if place == 0 else Stage.SOLUTION,
                prompt_ids=prompt,
                completion=completion(rng, rng.randrange(tokens), experts=place % 2 == 1),
                forked=kept < len(before),
                seconds=rng.random(),
            )
        )
        before = prompt + found[-1].completion.token_ids
    return tuple(found)


def trajectory(id: str, seed: int = 0, *, count: int = 4, tokens: int = 20) -> Trajectory:
    """The same one for the same arguments. `id` is "<task>@<n>/<scaffold>/<solution>"."""
    rng = random.Random(f"{seed}/{id}")
    group, scaffold, solution = id.rsplit("/", 2)
    text = "".join(rng.choices(WORDS, k=30))
    return Trajectory(
        id=id,
        group_id=group,
        task_id=group.rpartition("@")[0],
        category="algorithms",
        scaffold_index=int(scaffold),
        solution_index=int(solution),
        arm=rng.choice(list(Arm)),
        turns=turns(rng, count, tokens),
        scaffold_id="ab12",
        scaffold='{"instructions": "look"}',
        stop=rng.choice(list(StopReason)),
        verdict=Verdict(
            outcome=rng.choice(list(Outcome)),
            findings=(Finding(layer=Layer.MONITOR, rule="withheld_read", evidence=text, turn=2),),
            tests={"tests/test_m.py::test_a": "passed", text: "missing"},
            cause="vanished",
            record={"monitor": "1", "judge": "none"},
            seconds=rng.random(),
        ),
        messages=(
            {"role": "system", "content": text},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "read", "arguments": {"path": text, "n": 1}}]},
            {"role": "tool", "content": text, "name": "read"},
        ),
        admitted_version=rng.randrange(9),
        metrics={"seconds/engine": rng.random(), "forks": 2.0},
    )
