"""Checks between the nodes of a tier: do they see each other's files, reach each other, and agree on the time?"""

from __future__ import annotations

import os
import socket
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from ornith_jax.slurm.node import Finding
from rollout.errors import RolloutError
from rollout.ports import free_port
from rollout.run_dir import read_json, write_json

MEET_S = 60.0  # for all nodes to be seen
ASK_S = 5.0
RENAMES_S = 1.0
SKEW_S = 2.0  # between two clocks; reports of two hosts are put in order by their times
BYTES = 64 << 10


def check_peers(
    folder: Path, count: int, ports: Sequence[int] = (), *, node: str = "", meet_s: float = MEET_S
) -> list[Finding]:
    """Meet the other nodes in `folder`, which is new and on the shared file system; all of them call it.

    Args:
        count: of nodes, this one included.
        node: the name under which others reach this one; by default the host's.
    """
    node = node or this_node()
    try:
        server = socket.create_server(("", free_port(ports)), backlog=256)
    except (OSError, RolloutError) as error:
        return [Finding("network", False, f"cannot listen: {error}", "widen `ports` of the site")]
    threading.Thread(target=_answer, args=(server,), daemon=True).start()
    began = time.monotonic()
    write_json(folder / "here" / f"{node}.json", {"node": node, "port": server.getsockname()[1]})
    here = _wait_for(folder / "here", count, meet_s)
    said = f"{len(here)} of {count} nodes seen after {time.monotonic() - began:.1f} s"
    found = [
        Finding(
            "visibility",
            len(here) >= count,
            said,
            "is `run_root` the same shared folder on every node? See the logs of those missing",
        )
    ]
    others = [other for other in here if other["node"] != node]
    found += _network(others)
    found.append(_renames(folder / "renames", node, [other["node"] for other in others]))
    write_json(folder / "done" / f"{node}.json", {"node": node})
    _wait_for(folder / "done", len(here), meet_s)  # until then, others may still ask this one
    server.close()
    return found


def this_node() -> str:
    return os.uname().nodename


def _answer(server: socket.socket) -> None:
    """Tells everyone who connects what time it is here."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.sendall(repr(time.time()).encode())


def _wait_for(folder: Path, count: int, deadline_s: float) -> list[dict]:
    until = time.monotonic() + deadline_s
    while True:
        found = [read_json(path) for path in sorted(folder.glob("*.json"))]
        if len(found) >= count or time.monotonic() > until:
            return [one for one in found if one is not None]
        time.sleep(0.1)


def _network(others: Sequence[dict]) -> list[Finding]:
    """Connect to each by its name, and compare clocks: half of the round trip is the error."""
    failed, skews = [], []
    for other in others:
        try:
            began = time.time()
            with socket.create_connection((other["node"], other["port"]), timeout=ASK_S) as connection:
                theirs = float(connection.makefile().read())
            skews.append((abs(theirs - (began + time.time()) / 2), other["node"]))
        except (OSError, ValueError) as error:
            failed.append(f"{other['node']}:{other['port']} ({error})")
    said = "all reached by name" if not failed else f"not reached: {', '.join(failed[:3])} and so on"
    mend = "do names of nodes resolve on nodes, and which ports may they reach each other on? Set `ports` of the site"
    found = [Finding("network", not failed, said, mend)]
    worst, whose = max(skews, default=(0.0, ""))
    said = f"{worst * 1e3:.0f} ms from {whose}" if whose else "no other node to compare with"
    return [*found, Finding("clock", worst <= SKEW_S, said, "is chrony or ntpd running on both nodes? Ask the site")]


def _renames(folder: Path, node: str, others: Sequence[str]) -> Finding:
    """Replace a file again and again while the others read it: every reader must see a whole one."""
    torn = reads = 0
    until, number = time.monotonic() + RENAMES_S, 0
    while time.monotonic() < until:
        text = f"{node} {number} " * (BYTES // 16)
        write_json(folder / f"{node}.json", {"text": text, "crc": zlib.crc32(text.encode())}, durable=False)
        number += 1
        for other in others[:8]:
            try:
                found = read_json(folder / f"{other}.json")
            except (RolloutError, OSError):
                torn += 1
                continue
            if found is not None:
                reads += 1
                torn += zlib.crc32(found["text"].encode()) != found["crc"]
    said = f"{reads} reads of files that others replaced, {torn} of them torn"
    return Finding(
        "atomic rename", not torn, said, "`run_root` needs a file system whose renames are atomic: not object storage"
    )
