"""Python sources as lists of lines: where functions begin and end, and what the visible tests expect of them."""

from __future__ import annotations

import ast
import builtins
import keyword
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envs.suites.fledgling.draft import VISIBLE
from envs.types import File, Task, Tree

Texts = Mapping[str, str]
"""Path -> text of the files that a submission changes or adds."""


@dataclass(frozen=True, slots=True)
class Function:
    """`start` is the line (from 0) of the first statement after the docstring, `end` the one after the last."""

    path: str
    name: str
    parameters: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Known:
    """One case that a visible test shows: a call, its arguments and the value, as source text."""

    name: str
    arguments: tuple[str, ...]
    value: str


def texts(tree: Tree) -> dict[str, str]:
    return {path: file.data.decode() for path, file in tree.items()}


def files(changed: Texts) -> dict[str, File]:
    return {path: File(text.encode()) for path, text in changed.items()}


def functions(path: str, text: str) -> list[Function]:
    """Top-level functions with a body after their docstring."""
    found = []
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body:
            names = tuple(argument.arg for argument in node.args.args)
            found.append(Function(path, node.name, names, body[0].lineno - 1, node.end_lineno or body[0].lineno))
    return found


def known_cases(task: Task) -> list[Known]:
    """What the visible tests assert as `call == literal`, or as `literal in call`."""
    found = []
    for node in ast.walk(ast.parse(task.visible[VISIBLE].data.decode())):
        if not isinstance(node, ast.Compare):
            continue
        call, value = node.left, node.comparators[0]
        if isinstance(node.ops[0], ast.In):
            call, value = value, call
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
            found.append(Known(call.func.id, tuple(map(ast.unparse, call.args)), ast.unparse(value)))
    return found


def target(task: Task, name: str) -> Function | None:
    """The function `name` of the task's visible files."""
    for path, text in texts(task.visible).items():
        if path.startswith("app/") and path.endswith(".py"):
            for function in functions(path, text):
                if function.name == name:
                    return function
    return None


def insert(text: str, at: int, rows: Sequence[str]) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:at], *rows, *lines[at:]]) + "\n"


def indented(rows: Sequence[str], by: int = 4) -> list[str]:
    return [" " * by + row if row else row for row in rows]


def vary(rng: random.Random, literal: str) -> str:
    """Another literal of the same form: every number is drawn anew."""

    class Redraw(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            if type(node.value) is int:
                return ast.Constant(rng.randint(0, 60))
            if type(node.value) is float:
                return ast.Constant(rng.randint(1, 80) / 4)
            return node

    return ast.unparse(Redraw().visit(ast.parse(literal, mode="eval")))


def word(rng: random.Random) -> str:
    """A word that nobody knows, and not one of Python's, such as "tamol": a new name must tell a judge nothing."""
    while True:
        parts = [rng.choice("bcdfglmnprstv") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))]
        found = "".join(parts) + rng.choice(("", "n", "r", "t", "ck"))
        if not keyword.iskeyword(found) and not hasattr(builtins, found):
            return found
