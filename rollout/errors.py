"""Failures of the rollout tier, each with an owner. None of them is ever a lesson for the policy."""

from __future__ import annotations


class RolloutError(Exception):
    """Bad input or a broken setting: one line that names the file or field, and the mend."""


class EngineError(Exception):
    """The engine could not answer. `cause` is one of CAUSES; the episode ends as ENGINE_ERROR or is tried again."""

    CAUSES = ("not_ready", "unreachable", "rejected", "bad_answer", "dead", "update_failed")

    def __init__(self, cause: str, message: str) -> None:
        assert cause in self.CAUSES, cause
        super().__init__(f"{cause}: {message}")
        self.cause = cause


class ScaffoldError(RolloutError):
    """A reply that holds no valid scaffold. The message, which the policy reads, names path and limits."""
