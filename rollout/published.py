"""A published version of the weights: `weights/v0000012/`, a Hugging Face folder with a READY file in it.

READY is written last and names every other file with its size and checksum; then the folder gets its name by one
rename. A folder without it, or that differs from it, is never loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from rollout.errors import RolloutError

READY = "READY"
NAME = re.compile(r"v(\d{7,})")


def version_folder(root: Path, policy_version: int) -> Path:
    """weights, 12 -> weights/v0000012"""
    return root / f"v{policy_version:07d}"


def newest(root: Path) -> tuple[int, Path] | None:
    """The highest version that is ready, or None."""
    ready = [p.parent for p in root.glob(f"v*/{READY}") if NAME.fullmatch(p.parent.name)]
    return max(((int(p.name[1:]), p) for p in ready), default=None)


def family_of(folder: Path) -> str:
    """The model family of a published version, "qwen3_5" or "gemma4". Raises RolloutError without a config.json."""
    try:
        fields = json.loads((folder / "config.json").read_text())
        model_type = str(fields.get("text_config", fields)["model_type"])
    except (OSError, ValueError, KeyError, AttributeError):
        raise RolloutError(f"{folder / 'config.json'}: missing or damaged; publish the version again") from None
    return model_type.removesuffix("_text").removesuffix("_moe")


def seal(folder: Path, policy_version: int) -> None:
    """Write READY for the files that are in the folder now."""
    files = {str(p.relative_to(folder)): _describe(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    with (folder / READY).open("x") as f:
        json.dump({"policy_version": policy_version, "files": files}, f, indent=1)
        f.flush()
        os.fsync(f.fileno())


def verify(folder: Path, policy_version: int) -> None:
    """Read every file and compare. Raises RolloutError that names the file which is missing or differs."""
    try:
        ready = json.loads((folder / READY).read_text())
        version, files = ready["policy_version"], dict(ready["files"])
    except OSError:
        raise RolloutError(f"{folder}: no {READY} file; it is not (or not yet) a published version") from None
    except (ValueError, KeyError, TypeError):
        raise RolloutError(f"{folder / READY}: damaged; publish the version again") from None
    if version != policy_version:
        raise RolloutError(f"{folder}: holds version {version}, not {policy_version}")
    for name, wanted in files.items():
        if not (folder / name).is_file():
            raise RolloutError(f"{folder / name}: missing, but {READY} lists it; publish the version again")
        if _describe(folder / name) != wanted:
            raise RolloutError(f"{folder / name}: differs from its checksum; publish the version again")


def _describe(file: Path) -> dict[str, object]:
    with file.open("rb") as f:
        return {"bytes": os.fstat(f.fileno()).st_size, "sha256": hashlib.file_digest(f, "sha256").hexdigest()}
