"""`open_sandbox`: a fresh sandbox from the pristine image."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from envs.errors import SandboxError
from envs.sandbox import apptainer, bubblewrap, decoys, proc, reaper
from envs.sandbox.folder import AGENT_HOME, Folder, make_folder, remove
from envs.sandbox.identity import Identity, identity
from envs.sandbox.images import resolve
from envs.sandbox.live import LiveSandbox, end
from envs.sandbox.spec import Spec
from envs.sandbox.wire import Wire, agent_command
from envs.types import File, Limits

START_S = 60.0
MB = 1 << 20
T = TypeVar("T")


async def open_sandbox(
    image: str,
    *,
    limits: Limits,
    workdir: str = "/workspace",
    decoys: Sequence[str] = (),
    read_only: Mapping[str, File] | None = None,
    backend: str = "auto",
) -> LiveSandbox:
    """Start a sandbox; the caller closes it. `decoys`: absolute paths where a watched stub lies. `read_only`:
    absolute path -> a file that cannot be written. Raises SandboxError (cause image, account, start, ...)."""
    return await start(
        Spec(
            image=image,
            limits=limits,
            workdir=workdir,
            decoys=tuple(decoys),
            read_only=dict(read_only or {}),
            backend=backend,
        )
    )


async def start(spec: Spec) -> LiveSandbox:
    """As `open_sandbox`, from a Spec."""
    await reaper.reap_once()
    module = apptainer if choose(spec.backend) == "apptainer" else bubblewrap
    who = identity()
    image = await asyncio.to_thread(resolve, spec.image)
    folder = await _folder(spec, image, who)
    launcher = None
    try:
        words = module.command(folder, agent_command(folder.token))
        launcher = await _launched(words, folder)
        return await _greet(spec, folder, launcher)
    except BaseException as error:
        if launcher is not None:
            await asyncio.shield(_end(launcher))
        said = _stderr(folder)
        with contextlib.suppress(SandboxError):
            await asyncio.shield(_remove(folder))
        if isinstance(error, SandboxError | OSError):
            raise SandboxError(f"{spec.image} does not start: {error} {said}".rstrip(), cause="start") from error
        raise


async def _folder(spec: Spec, image: Path, who: Identity) -> Folder:
    """`make_folder` in a thread. A thread cannot be cancelled: what it makes for nobody is removed."""
    return await _whole(asyncio.to_thread(make_folder, spec, image, who), _remove)


async def _launched(words: list[str], folder: Folder) -> asyncio.subprocess.Process:
    """`_launch`, which is never cancelled half-way: asyncio of Python 3.11 then may wait for ever for its pipes."""
    return await _whole(_launch(words, folder), _end)


async def _whole(making: Coroutine[Any, Any, T], unmake: Callable[[T], Awaitable[None]]) -> T:
    """Wait for it. When that is cancelled, what comes of it is unmade."""
    task = asyncio.create_task(making)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.shield(_unmade(task, unmake))
        raise


async def _unmade(making: asyncio.Task[T], unmake: Callable[[T], Awaitable[None]]) -> None:
    with contextlib.suppress(SandboxError, OSError):
        await unmake(await making)


async def _end(launcher: asyncio.subprocess.Process) -> None:
    await end(launcher, proc.namespace_init(launcher.pid))


async def _remove(folder: Folder) -> None:
    await asyncio.to_thread(remove, folder.root)


def choose(backend: str) -> str:
    """The backend that "auto" means on this host. Raises SandboxError when there is none."""
    usable = {"apptainer": apptainer.available(), "bubblewrap": bubblewrap.available()}
    for name in usable if backend == "auto" else (backend,):
        if usable[name]:
            return name
    what = "neither Apptainer nor bubblewrap" if backend == "auto" else backend
    raise SandboxError(f"{what} is installed: run `ornith sandbox install`", cause="backend")


async def _launch(words: list[str], folder: Folder) -> asyncio.subprocess.Process:
    program = shutil.which(words[0])
    # A bare environment: whatever the launcher inherits could be read by the policy.
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent", "LC_ALL": "C"}
    with (folder.root / "stderr").open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            program or words[0],
            *words[1:],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd="/",
            **folder.who.spawn(),
        )


async def _greet(spec: Spec, folder: Folder, launcher: asyncio.subprocess.Process) -> LiveSandbox:
    """Boot the agent and find its host pid."""
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    wire = Wire(launcher.stdout, launcher.stdin)
    hello = await wire.boot(_settings(spec), START_S)
    if not hello.get("shell"):
        raise SandboxError("the image has no /bin/bash")
    if not hello.get("confined"):
        raise SandboxError("there is no system call filter for this processor (known: x86_64, aarch64)")
    if hello.get("pid") != 1 or hello.get("uid") != folder.who.uid:
        raise SandboxError(f"the agent is pid {hello.get('pid')} of uid {hello.get('uid')}, not 1 of {folder.who.uid}")
    init_pid = proc.namespace_init(launcher.pid)
    if init_pid is None:
        raise SandboxError("the sandbox's PID 1 is not to be found in /proc")
    decoys.drain()
    return LiveSandbox(spec, folder, launcher, wire, init_pid)


def _settings(spec: Spec) -> dict[str, Any]:
    limits = spec.limits
    rlimits = {
        "FSIZE": limits.file_mb * MB,
        "CORE": 0,
        "NOFILE": 1024,
        # Twice the memory: the watchdog says MEMORY first, this only bounds what happens between its sweeps.
        "DATA": 2 * limits.memory_mb * MB,
        "MEMLOCK": 8 * MB,
        "MSGQUEUE": MB,
    }
    if counts_processes_per_namespace():
        rlimits["NPROC"] = limits.processes + 64
    env = {"HOME": AGENT_HOME, "USER": "agent", "LOGNAME": "agent", "LANG": "C.UTF-8", "TERM": "dumb", "PAGER": "cat"}
    env |= {"EMAIL": "agent@sandbox", "GIT_PAGER": "cat", "SHELL": "/bin/bash"}
    return {"rlimits": rlimits, "env": env, "cpu_s": int(limits.episode_s) + 1, "seq": 0}


def counts_processes_per_namespace() -> bool:
    """Before Linux 5.14 RLIMIT_NPROC counted an account over the whole host: neighbours would starve each other."""
    major, minor = os.uname().release.split(".")[:2]
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    return (int(major), int(minor)) >= (5, 14) and soft != 0


def _stderr(folder: Folder) -> str:
    try:
        return (folder.root / "stderr").read_bytes()[-400:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
