"""`metrics.jsonl`: one line for each batch, written at once; a line that a kill cut short does not count."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from ornith_jax.errors import OrnithError

FILE = "metrics.jsonl"


def append(path: Path, record: Mapping[str, float]) -> None:
    """Add one record, on disk when this returns. JSON knows no NaN: what is not finite is written as null."""
    plain = {name: value if math.isfinite(value) else None for name, value in record.items()}
    with path.open("a") as file:
        file.write(json.dumps(plain) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, float | None]]:
    """All records; none when there is no file. Raises OrnithError for a damaged line, unless it is a torn last."""
    if not path.exists():
        return []
    records = []
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is nothing, or a torn line
        try:
            records.append(json.loads(line))
        except ValueError:
            raise OrnithError(f"{path}, line {number}: not JSON; the file was changed by something else") from None
    return records


def rewind(path: Path, batch: int) -> None:
    """Forget the records after `batch`, which will be made again, and a torn line. At once or not at all."""
    kept = [record for record in read(path) if (record["batch"] or 0) <= batch]
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
