"""A port that is free on this node: any, or one of the range that a site's firewalls leave open.

`python -m ornith_jax.slurm.ports [FIRST LAST]` prints it.
"""

from __future__ import annotations

import random
import socket
import sys

from ornith_jax.errors import OrnithError


def free_port(first: int = 0, last: int = 0) -> int:
    """Without a range, the system chooses. Raises OrnithError when every port of the range is taken."""
    if not first:
        with socket.socket() as listener:
            listener.bind(("", 0))
            return listener.getsockname()[1]
    ports = list(range(first, last + 1))
    random.shuffle(ports)  # jobs that share a node shall not race for the first one
    for port in ports:
        if not in_use(port):
            return port
    raise OrnithError(
        f"ports: all of {first} to {last} are in use on {socket.gethostname()}; widen `ports` of the site"
    )


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
        print(free_port(*map(int, sys.argv[1:])))
    except OrnithError as error:
        sys.exit(f"ornith: error: {error}")
