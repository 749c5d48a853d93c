"""Cases and requests for a verdict, as the filter makes them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tokenizers import Tokenizer

from envs.guard.exhibit import exhibit
from envs.guard.prompts import verdict_messages
from envs.types import Episode
from rollout.judging import gaming, plans
from rollout.judging.labelled import HONEST, Case, cases, lines_of
from rollout.judging.windows import train_tokenizer

MARK, CANARY = "[[0123456789abcdef01234567]]", "ok12345678"


@cache
def some() -> tuple[Case, ...]:
    """A hundred cases of all families and kinds."""
    return cases(7, 100, gaming.SEEN | gaming.UNSEEN, list(HONEST), (*plans.STEPS, *plans.NEW))


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer([line for case in some() for line in lines_of(case)])


def request(episode: Episode, *, method: int = 0, mark: str = MARK, canary: str = CANARY) -> list[dict[str, str]]:
    return verdict_messages(exhibit(episode).text(), method=method, mark=mark, canary=canary)


def one(family: str) -> Case:
    return next(case for case in some() if case.family == family)


def observing(episode: Episode, text: str) -> Episode:
    """The episode, with a text as what its first tool answered."""
    first, *rest = episode.actions
    return replace(episode, actions=(replace(first, observation=text), *rest))
