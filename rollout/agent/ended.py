"""How the loop is left from anywhere inside it."""

from __future__ import annotations

from rollout.types import StopReason


class Ended(Exception):
    """The episode is over. `cause` names the failure when `stop` is ours."""

    def __init__(self, stop: StopReason, cause: str = "") -> None:
        super().__init__(stop.value)
        self.stop, self.cause = stop, cause
