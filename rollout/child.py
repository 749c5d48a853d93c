"""Processes that never outlive the one that started them, however that ends.

    python -m rollout.child PARENT COMMAND...

asks Linux for a SIGKILL when the parent dies, makes sure that it has not died before, and becomes the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def dying_with_us(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as a child of this very process. Start it from a thread that stays."""
    return [sys.executable, "-m", "rollout.child", str(os.getpid()), *argv]


def main() -> None:
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
