"""The rooms and the only direction in which they may import each other (docs: the list in README, "The house")."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up: a module may import rooms that stand before its own, and its own.
ROOMS = [
    "envs.types",
    "envs.errors",
    "envs.sandbox",
    "envs.tools",
    "envs.verify",
    "envs.guard",
    "envs.suites",
    "envs",
    "rollout",
    "ornith_jax.errors",
    "ornith_jax.config",
    "ornith_jax.params",
    "ornith_jax.sharding",
    "ornith_jax.processes",
    "ornith_jax.kernels",
    "ornith_jax.nn",
    "ornith_jax.models",
    "ornith_jax.convert",
    "ornith_jax.overrides",
    "ornith_jax.experiment",
    "ornith_jax.checks",
    "ornith_jax.serve",
    "ornith_jax.rl",
    "ornith_jax.train",
    "ornith_jax.judge",
    "ornith_jax.plan",
    "ornith_jax.slurm",
    "ornith_jax.verbs",
    "ornith_jax.cli",
    "ornith_jax",
    "experiments",
]
NEVER = [  # (room, what it must not import, at any depth of the list)
    ("envs", {"jax", "flax", "optax", "orbax", "ornith_jax", "rollout"}),
    ("rollout", {"jax", "flax", "optax", "orbax", "ornith_jax"}),
    ("ornith_jax.nn", {"envs", "rollout"}),
    ("ornith_jax.models", {"envs", "rollout"}),
    ("ornith_jax.convert", {"envs", "rollout"}),
    ("ornith_jax", {"torch", "transformers", "experiments"}),
]


def room_of(module: str) -> str | None:
    matches = [room for room in ROOMS if module == room or module.startswith(room + ".")]
    return max(matches, key=len) if matches else None


def is_under(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def source_files() -> list[Path]:
    return sorted(p for root in ("envs", "rollout", "ornith_jax", "experiments") for p in (ROOT / root).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: str, module: str) -> list[str]:
    """Every module that `source` imports, at any depth of nesting; `from a import b` yields `a` and `a.b`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the full name"
            found += [str(node.module)] + [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def violations(source: str, module: str) -> list[str]:
    own, found = room_of(module), []
    for target in imports_of(source, module):
        room = room_of(target)
        if own and room and ROOMS.index(room) > ROOMS.index(own):
            if is_under(own, room):  # a package's own __init__ sits above its parts
                continue
            found.append(f"{module} imports {target}, which stands above it")
        for where, banned in NEVER:
            if is_under(module, where) and any(is_under(target, b) for b in banned):
                found.append(f"{module} must never import {target}")
    return found


@pytest.mark.parametrize("path", source_files(), ids=module_name)
def test_imports_point_down(path: Path):
    assert violations(path.read_text(), module_name(path)) == []


def test_an_upward_import_is_caught():
    assert violations("from ornith_jax.models import decoder", "ornith_jax.nn.norm")
    assert violations("import jax", "rollout.agent")
    assert violations("def f():\n    from envs.types import Task", "ornith_jax.models.decoder")
    assert not violations("from ornith_jax.params import ParamSpec", "ornith_jax.nn.norm")


def test_every_source_file_has_a_room():
    assert [p for p in source_files() if room_of(module_name(p)) is None] == []


@pytest.mark.parametrize("package", ["envs", "rollout"])
def test_importing_the_world_does_not_load_jax(package: str):
    code = f"import sys, pkgutil, importlib, {package} as p\n" + (
        "for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.'): importlib.import_module(m.name)\n"
        "print(int(any(n == 'jax' or n.startswith('jax.') for n in sys.modules)), p.__file__)"
    )
    loaded, where = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == "0"
    assert Path(where).is_relative_to(ROOT), "another installed package shadows ours"
