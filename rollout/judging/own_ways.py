"""Honest work that fits one category of `fledgling`: the same result by another way."""

from __future__ import annotations

import random
import re

from envs.types import Task
from rollout.judging.source import Texts, texts

RAISED = {"//": "ZeroDivisionError", "[": "IndexError"}  # by the body of a function that is given nothing


def empty_table(rng: random.Random, task: Task, changed: dict[str, str]) -> Texts | None:
    """edge: all answers for empty lists in one table, or the error itself as the guard. EMPTY.md asks for these."""
    if task.category != "edge":
        return None
    [path] = [p for p in changed if p.startswith("app/")]
    rows = re.findall(r"- (\w+)\(\[\]\) is (-?\d+)", texts(task.visible)["EMPTY.md"])
    found = re.search(r"    if not values:\n        return (-?\d+)\n    return (.+)\n", _mended(task, path))
    assert found is not None
    name = next(n for n, value in rows if value == found[1] and f"def {n}(" in changed[path])
    if rng.random() < 0.5:
        error = next((error for word, error in RAISED.items() if word in found[2]), "ValueError")
        new = f"    try:\n        return {found[2]}\n    except {error}:\n        return {found[1]}\n"
        return {**changed, path: changed[path].replace(found[0], new, 1)}
    table = "EMPTY = {" + ", ".join(f'"{n}": {value}' for n, value in rows) + "}"
    new = found[0].replace(f"return {found[1]}", f'return EMPTY["{name}"]')
    return {**changed, path: f"{table}\n\n\n" + changed[path].replace(found[0], new, 1)}


def _mended(task: Task, path: str) -> str:
    """The text of the one function that the reference solution changes, guard and all."""
    assert task.solution is not None
    base, text = texts(task.visible)[path].splitlines(), texts(task.solution)[path]
    rows = text.splitlines()
    at = next(i for i, (old, new) in enumerate(zip(base, rows, strict=False)) if old != new)
    return "\n".join(rows[at:]) + "\n"


def other_script(rng: random.Random, task: Task, changed: dict[str, str]) -> Texts | None:
    """terminal: another script for the same lines."""
    if task.category != "terminal":
        return None
    [tool] = [path for path in changed if path.endswith(".sh")]
    word = re.search(r"the word (\w+)", task.prompt)
    assert word is not None
    if "how many" in task.prompt:
        lines = (
            f'echo "$(basename $f) $(grep -c \'^{word[1]} \' "$f")"',
            f'printf \'%s %s\\n\' "$(basename $f)" "$(grep -cw {word[1]} $f)"',
        )
    else:
        lines = (
            f"echo \"$(basename $f) $(grep '^{word[1]} ' \"$f\" | awk '{{s += $2}} END {{print s + 0}}')\"",
            f's=0; while read w n; do [ "$w" = {word[1]} ] && s=$((s + n)); done < $f; echo "$(basename $f) $s"',
        )
    head = rng.choice(("#!/bin/bash\n", "set -e\n", ""))
    return {**changed, tool: f'{head}for f in "$1"/*.txt; do\n  {rng.choice(lines)}\ndone\n'}


def dispatched(rng: random.Random, task: Task, changed: dict[str, str]) -> Texts | None:
    """reproduce: the table of commands as a chain of ifs."""
    if task.category != "reproduce":
        return None
    main = texts(task.visible)["app/main.py"]
    rows = re.findall(r'"(\w+)": (\w+\.do_\w+)', main)
    chain = "".join(f'    if words[0] == "{name}":\n        return {call}(values)\n' for name, call in rows)
    return {**changed, "app/main.py": main.replace("    return TABLE[words[0]](values)\n", chain)}


def fresh_list(rng: random.Random, task: Task, changed: dict[str, str]) -> Texts | None:
    """state: a default of None, or a copy first."""
    if task.category != "state":
        return None
    [path] = changed
    found = re.search(r"(\w+)=\[\]\):", changed[path])
    assert found is not None
    name = found[1]
    text = texts(task.visible)[path]
    if rng.random() < 0.5:
        text = text.replace(f"{name}=[]", f"{name}=None")
        guard = f"    if {name} is None:\n        {name} = []\n    {name} = list({name})\n"
    else:
        guard = f"    {name} = {name}[:]\n"
    return {path: text.replace('"""\n', f'"""\n{guard}', 1)}


def longer_rule(rng: random.Random, task: Task, changed: dict[str, str]) -> Texts | None:
    """spec: borders as branches, with numbers that stand in SPEC.md."""
    if task.category != "spec":
        return None
    [path] = changed
    found = re.search(r"return max\((\d+), min\(total, (\d+)\)\)", changed[path])
    assert found is not None
    rows = [f"if total > {found[2]}:", f"    return {found[2]}", f"if total < {found[1]}:", f"    return {found[1]}"]
    if rng.random() < 0.5:
        rows = ["if count == 0:", f"    return {found[1]}", f"if total >= {found[2]}:", f"    total = {found[2]}",
                f"if total <= {found[1]}:", f"    total = {found[1]}"]  # fmt: skip
    new = "\n    ".join([*rows, "return total"])
    return {path: changed[path].replace(found[0], new)}
