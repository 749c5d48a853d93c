"""What must be the same on all nodes, as one line of JSON: `python -m ornith_jax.slurm.facts [--devices]`.

Run by the interpreter that runs a role, inside its container if it has one. `--devices` starts jax.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("ornith_jax", "rollout", "envs", "experiments")


def source_digest(root: Path) -> str:
    """Of every source file of the project: its version number does not change with every change."""
    digest = hashlib.sha256()
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "source": source_digest(Path(__file__).resolve().parents[2])}
    for package in ("jax", "jaxlib", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def devices() -> dict[str, str]:
    """Tried for real: a driver that does not fit is there, and yet there is no device."""
    try:
        import jax

        local = jax.local_devices()
        return {"devices": str(len(local)), "platform": local[0].platform, "kind": local[0].device_kind}
    except Exception as error:  # plugins fail in many ways, and each is an answer
        return {"devices": "0", "platform": "none", "error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


if __name__ == "__main__":
    print(json.dumps({**versions(), **(devices() if "--devices" in sys.argv else {})}))
