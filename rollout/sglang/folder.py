"""What is in a safetensors folder, by its headers: to refuse, before it is sent, what a server would take in silence.

sglang 0.5.23 answers "success" to a folder that lacks tensors or has unknown ones, and dies of one with a wrong shape.
"""

from __future__ import annotations

import json
from pathlib import Path

from rollout.errors import EngineError

Tensors = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> (dtype code, shape)."""


def read_tensors(folder: Path) -> Tensors:
    """All tensors of the folder. Raises EngineError("update_failed") naming the file that cannot be read."""
    found: Tensors = {}
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError("update_failed", f"{folder}: no safetensors file; publish the version again")
    for file in files:
        try:
            with file.open("rb") as f:
                size = int.from_bytes(f.read(8), "little")
                if not 2 <= size <= file.stat().st_size:
                    raise ValueError(f"a header of {size} bytes")
                header = json.loads(f.read(size))
            end = 8 + size + max((t["data_offsets"][1] for n, t in header.items() if n != "__metadata__"), default=0)
            if end != file.stat().st_size:
                raise ValueError(f"{file.stat().st_size} bytes where the header tells {end}")
            found |= {n: (t["dtype"], tuple(t["shape"])) for n, t in header.items() if n != "__metadata__"}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError("update_failed", f"{file}: damaged ({error}); publish the version again") from None
    return found


def check_same(folder: Path, expected: Tensors) -> None:
    """The folder must hold exactly the tensors that the server serves. Raises EngineError that names a difference."""
    found = read_tensors(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            raise EngineError("update_failed", f"{folder}: tensor {name} is missing; publish the whole model")
        if name not in expected:
            raise EngineError("update_failed", f"{folder}: tensor {name} is unknown to the served model")
        if found[name][1] != expected[name][1]:
            shapes = f"{list(found[name][1])}, the server has {list(expected[name][1])}"
            raise EngineError("update_failed", f"{folder}: tensor {name} has shape {shapes}")


def vocab_size(folder: Path) -> int:
    """From config.json. Raises EngineError("bad_answer") when it is not there or has none."""
    try:
        fields = json.loads((folder / "config.json").read_text())
        return int(fields.get("text_config", fields)["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder / 'config.json'}: {error}; the client must see the folder that the server loaded"
        raise EngineError("bad_answer", message) from None
