"""A port that is free on this host: any, or one of the range that a site's firewalls leave open.

`ORNITH_PORTS="FIRST LAST"` is that range, for all that a run starts. `python -m rollout.ports` prints a port.
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Sequence

from rollout.errors import RolloutError


def allowed() -> tuple[int, ...]:
    """(first, last) of the environment; empty: any."""
    return tuple(map(int, os.environ.get("ORNITH_PORTS", "").split()))


def free_port(ports: Sequence[int]) -> int:
    """One of `ports`, (first, last); without a range, the system chooses. Raises RolloutError when all are taken."""
    if not ports:
        with socket.socket() as listener:
            listener.bind(("", 0))
            return listener.getsockname()[1]
    first, last = ports
    shuffled = list(range(first, last + 1))
    random.shuffle(shuffled)  # jobs that share a node shall not race for the first one
    free = next((port for port in shuffled if not in_use(port)), None)
    if free is None:
        raise RolloutError(
            f"ports: {first} to {last} are all in use on {socket.gethostname()}; widen the site's `ports`"
        )
    return free


def in_use(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is only remembered does not count
        try:
            listener.bind(("", port))
            listener.listen()
        except OSError:
            return True
    return False


if __name__ == "__main__":
    try:
        print(free_port(allowed()))
    except RolloutError as error:
        sys.exit(f"ornith: error: {error}")
