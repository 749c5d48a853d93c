"""A script that solves the procedural suite: it shows a whole run at work where there is no model yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envs.suites import fledgling
from envs.types import Task
from rollout.chat import qwen3_5
from rollout.chat.types import Chat, Reply
from rollout.errors import RolloutError
from rollout.scaffold.defaults import default_scaffold
from rollout.scaffold.document import bounds_of, canonical
from rollout.scaffold.prompt import proposal_prompt
from rollout.scripted import Say
from rollout.settings import RolloutSettings

PROPOSING = "You write scaffolds."  # how a prompt for a scaffold begins


def expert_script(chat: Chat, tasks: Sequence[Task], settings: RolloutSettings) -> Callable[[tuple[int, ...]], Say]:
    """For `ScriptedEngine`, over a chat of Qwen3.5: the default scaffold, then the suite's expert call by call."""
    if tasks and not proposal_prompt(tasks[0], bounds_of(tasks[0], settings), None)[0].startswith(PROPOSING):
        raise AssertionError("the proposal's prompt begins otherwise now")

    def say(prompt_ids: tuple[int, ...]) -> Say:
        text = chat.decode(prompt_ids)
        task = task_of(text, tasks)
        if PROPOSING in text:
            return Say(reply=Reply(canonical(default_scaffold(bounds_of(task, settings))), "", (), ""))
        calls, done = fledgling.expert(task), text.count(str(qwen3_5.RESPONSE))
        return Say(reply=Reply("", "", (calls[min(done, len(calls) - 1)],), ""))

    return say


def task_of(text: str, tasks: Sequence[Task]) -> Task:
    """The task that a prompt is about. Raises `RolloutError` when it is none of them.

    Some tasks share their prompt; they begin with the same looks, and what those show tells them apart.
    """
    known = [task for task in tasks if task.prompt in text]
    if not known:
        raise RolloutError("a script was asked about a task that it does not know")
    return max(known, key=lambda task: (len(task.prompt), _shown(task, text)))


def _shown(task: Task, text: str) -> int:
    """How many of its files the text holds, or at least names."""
    return sum((file.data.decode().strip() in text) + (path in text) for path, file in task.visible.items())
