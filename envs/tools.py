"""The sanctioned tool surface: seven tools, fixed JSON schemas with a hash, one `dispatch`.

A call that breaks its schema or fails in the sandbox is an observation for the policy. A call across the
boundary (a tool the task does not sanction, a path outside the workspace, a withheld or a protected path) is
not executed: its `Action.refused` starts with one of the words of `REFUSALS` and the filter reads it there.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from envs.sandbox.globs import matches
from envs.sandbox.protocol import Sandbox
from envs.types import Action, ExecResult, ExecStatus, Task

OBSERVATION_CHARS = 6000
READ_BYTES = 1 << 20
SEARCH_LINES = 60
REFUSALS = ("unknown tool", "unsanctioned tool", "outside path", "withheld path", "protected path")


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as the policy wrote it, already parsed from its tokens."""

    name: str
    arguments: Mapping[str, object]


class Refused(Exception):
    """The call crosses the boundary; the message starts with a word of `REFUSALS`."""


class BadCall(Exception):
    """The call is inside the boundary but cannot be carried out; the message is the observation."""


def _tool(name: str, description: str, required: tuple[str, ...], **properties: tuple[str, str]) -> dict:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind, "description": text} for key, (kind, text) in properties.items()},
        "required": list(required),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


PATH = ("string", "path inside the workspace")
SCHEMAS: dict[str, dict] = {
    tool["function"]["name"]: tool
    for tool in (
        _tool(
            "read",
            "Read a text file.",
            ("path",),
            path=PATH,
            start=("integer", "first line, from 1"),
            lines=("integer", "how many lines"),
        ),
        _tool(
            "write",
            "Write a whole file.",
            ("path", "content"),
            path=PATH,
            content=("string", "the new content"),
        ),
        _tool(
            "edit",
            "Replace a text that occurs exactly once in a file.",
            ("path", "old", "new"),
            path=PATH,
            old=("string", "the text to replace"),
            new=("string", "its replacement"),
        ),
        _tool(
            "search",
            "Search files for a regular expression (grep -E).",
            ("pattern",),
            pattern=("string", "extended regular expression"),
            path=PATH,
        ),
        _tool(
            "shell",
            "Run a bash command in the workspace.",
            ("command",),
            command=("string", "the command"),
            timeout=("integer", "seconds"),
        ),
        _tool("run_tests", "Run the visible tests with pytest.", (), path=PATH),
        _tool("submit", "Hand in the workspace as it is; ends the episode.", ()),
    )
}
SCHEMA_HASH = hashlib.sha256(json.dumps(SCHEMAS, sort_keys=True).encode()).hexdigest()


def schemas(task: Task) -> list[dict]:
    """The function schemas of the tools that the task sanctions, in the task's order."""
    return [SCHEMAS[name] for name in task.tools]


async def dispatch(sandbox: Sandbox, task: Task, call: Call, *, turn: int) -> Action:
    """Carry out one call. Raises only `SandboxError` (our side failed); everything else is in the Action."""
    observation = refused = failure = ""
    try:
        _check(task, call)
        observation = await _HANDLERS[call.name](sandbox, task, call.arguments)
    except Refused as refusal:
        refused = str(refusal)
        observation = f"refused: {refused}"
    except BadCall as error:
        failure = str(error)
        observation = f"error: {failure}"
    return Action(
        turn=turn,
        tool=call.name,
        arguments=dict(call.arguments),
        observation=bounded(observation),
        refused=refused,
        error=failure,
    )


def bounded(text: str, limit: int = OBSERVATION_CHARS) -> str:
    """Head and tail of a text, with the number of characters that were left out between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _check(task: Task, call: Call) -> None:
    """The name must be sanctioned and the arguments must fit the schema."""
    if call.name not in SCHEMAS:
        raise Refused(f"unknown tool: {call.name}")
    if call.name not in task.tools:
        raise Refused(f"unsanctioned tool: {call.name}")
    parameters = SCHEMAS[call.name]["function"]["parameters"]
    for key, value in call.arguments.items():
        known = parameters["properties"].get(key)
        if known is None:
            raise BadCall(f"{call.name} has no argument {key!r}; it has {', '.join(parameters['properties'])}")
        kind = str if known["type"] == "string" else int
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BadCall(f"argument {key!r} of {call.name} must be a {known['type']}")
        if isinstance(value, str) and "\0" in value:
            raise BadCall(f"argument {key!r} of {call.name} holds a NUL character")
    for key in parameters["required"]:
        if key not in call.arguments:
            raise BadCall(f"{call.name} needs the argument {key!r}")


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _judge_path(path: str, task: Task) -> None:
    for withheld in task.withheld_paths:
        if _inside(path, posixpath.normpath(withheld)):
            raise Refused(f"withheld path: {path}")
    if not _inside(path, posixpath.normpath(task.workdir)):
        raise Refused(f"outside path: {path}")


async def _resolve(sandbox: Sandbox, task: Task, path: str, *, writing: bool = False) -> str:
    """The canonical absolute path, symlinks of the sandbox included; refuses what the task does not allow."""
    absolute = posixpath.normpath(posixpath.join(task.workdir, path))
    _judge_path(absolute, task)
    real = await sandbox.exec(f"realpath -m -z -- {shlex.quote(absolute)} | tr -d '\\0'", cwd="/")
    if real.status is not ExecStatus.OK or real.exit_code or not real.output.startswith("/"):
        raise BadCall(f"cannot resolve {path}")
    _judge_path(real.output, task)
    if writing:
        relative = posixpath.relpath(real.output, task.workdir)
        if relative in task.visible and matches(relative, task.verification.protected):
            raise Refused(f"protected path: {relative}")
    return real.output


async def _load(sandbox: Sandbox, path: str, shown: object) -> str:
    try:
        data = await sandbox.read(path, max_bytes=READ_BYTES)
    except OSError as error:
        raise BadCall(f"cannot read {shown}: {error.strerror or type(error).__name__}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadCall(f"{shown} is not a text file") from None


async def _save(sandbox: Sandbox, path: str, shown: object, text: str) -> None:
    mode = await sandbox.exec(f"test -f {shlex.quote(path)} && test -x {shlex.quote(path)}", cwd="/")
    try:
        await sandbox.write(path, text.encode(), executable=mode.exit_code == 0)
    except OSError as error:
        raise BadCall(f"cannot write {shown}: {error.strerror or type(error).__name__}") from None


async def _read(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    path = await _resolve(sandbox, task, arguments["path"])
    rows = (await _load(sandbox, path, arguments["path"])).splitlines(keepends=True)
    first = max(arguments.get("start", 1), 1) - 1
    return "".join(rows[first : first + max(arguments.get("lines", len(rows)), 0)])


async def _write(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    path = await _resolve(sandbox, task, arguments["path"], writing=True)
    await _save(sandbox, path, arguments["path"], arguments["content"])
    return f"wrote {arguments['path']}"


async def _edit(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    path = await _resolve(sandbox, task, arguments["path"], writing=True)
    text = await _load(sandbox, path, arguments["path"])
    count = text.count(arguments["old"]) if arguments["old"] else 0
    if count != 1:
        raise BadCall(f"the old text occurs {count} times in {arguments['path']}; it must occur exactly once")
    await _save(sandbox, path, arguments["path"], text.replace(arguments["old"], arguments["new"]))
    return f"edited {arguments['path']}"


async def _search(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    path = await _resolve(sandbox, task, arguments.get("path", "."))
    where = "" if path == task.workdir else shlex.quote(posixpath.relpath(path, task.workdir))
    grep = f"grep -rnIE --exclude-dir=.git -e {shlex.quote(arguments['pattern'])} -- {where}"
    result = await sandbox.exec(f"set -o pipefail; {grep} | head -n {SEARCH_LINES}", cwd=task.workdir)
    if result.status is ExecStatus.OK and result.exit_code == 1 and not result.output:
        return "no match"
    return _shown(result, show_zero=False)


async def _shell(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    longest = task.limits.command_s
    timeout = min(max(arguments.get("timeout", longest), 1), longest)
    return _shown(await sandbox.exec(arguments["command"], timeout_s=timeout))


async def _run_tests(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    where = ""
    if arguments.get("path"):
        where = shlex.quote(await _resolve(sandbox, task, arguments["path"]))
    command = f"PYTHONDONTWRITEBYTECODE=1 python3 -m pytest -q --tb=short -p no:cacheprovider {where}"
    return _shown(await sandbox.exec(command, cwd=task.workdir))


async def _submit(sandbox: Sandbox, task: Task, arguments: Mapping) -> str:
    return "submitted"


def _shown(result: ExecResult, *, show_zero: bool = True) -> str:
    """Output first, then one line that says how the command ended."""
    if result.status is not ExecStatus.OK:
        ending = f"[killed: {result.status.value} limit]"
    elif result.exit_code or show_zero:
        ending = f"[exit {result.exit_code}]"
    else:
        return result.output
    gap = "" if not result.output or result.output.endswith("\n") else "\n"
    return f"{result.output}{gap}{ending}"


Handler = Callable[[Sandbox, Task, Mapping], Awaitable[str]]
_HANDLERS: dict[str, Handler] = {
    "read": _read,
    "write": _write,
    "edit": _edit,
    "search": _search,
    "shell": _shell,
    "run_tests": _run_tests,
    "submit": _submit,
}
