"""One compilation, in a process of its own: `python -m ornith_jax.plan.worker RESULT.json` with the job on stdin.

The environment (plan.compile sets it) decides which compiler is loaded and where XLA writes its text.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

from ornith_jax.checks import check_training, model_config
from ornith_jax.errors import OrnithError
from ornith_jax.experiment import from_json
from ornith_jax.plan.devices import make_devices
from ornith_jax.plan.hlo import collective_bytes, memory_traffic, read
from ornith_jax.plan.program import decode_program, train_program
from ornith_jax.plan.topology import GIB, parse
from ornith_jax.train.state import mesh_of


def run(job: dict[str, Any], dump: Path) -> dict[str, Any]:
    """The job {"experiment": JSON text, "topology": name, "decode": bool} -> what plan.compile.Compiled holds."""
    experiment, topology = from_json(job["experiment"]), parse(job["topology"])
    check_training(experiment, topology.num_devices)
    cfg = model_config(experiment.model)
    mesh = mesh_of(experiment, make_devices(topology))
    started = time.monotonic()
    program = (decode_program if job["decode"] else train_program)(cfg, experiment, mesh)
    say(f"lowered in {time.monotonic() - started:.0f} s; compiling")
    started = time.monotonic()
    result: dict[str, Any] = {"arguments": program.arguments}
    try:
        compiled = program.lowered.compile()
    except Exception as error:  # XLA's out-of-memory error is an answer; anything else is not
        result |= {"needed": out_of_memory(str(error))}
    else:
        memory, text = compiled.memory_analysis(), read(optimized_text(compiled, dump))
        result |= {
            "needed": memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes  # results that take the place of arguments
            + memory.generated_code_size_in_bytes,
            "argument_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "code_bytes": memory.generated_code_size_in_bytes,
            "collectives": collective_bytes(text),
            "traffic": memory_traffic(text),
        }
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return result | {
        "compile_seconds": time.monotonic() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "host_bytes": usage.ru_maxrss * 1024,
    }


def out_of_memory(message: str) -> int:
    """Bytes that XLA said it needs. Raises OrnithError with the message when it is another failure.

    Example: "RESOURCE_EXHAUSTED: ... the total memory required for HLO temporaries (305.18G) exceeds ...".
    """
    found = re.search(r"RESOURCE_EXHAUSTED.*?[( ](\d+(?:\.\d+)?)G\)? ?(?:exceeds|of)", message, re.DOTALL)
    if found is None:
        raise OrnithError(f"the compiler failed: {message[:2000]}")
    return int(float(found[1]) * GIB)


def optimized_text(compiled: Any, dump: Path) -> str:
    """The program after optimization. libtpu cannot hand out some of them, so it is read from what XLA wrote."""
    written = list(dump.glob("*after_optimizations.txt"))  # small ones besides, of helpers that ran on the CPU
    return max(written, key=lambda path: path.stat().st_size).read_text() if written else compiled.as_text()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    job = json.loads(sys.stdin.read())
    try:
        result = run(job, Path(os.environ["ORNITH_PLAN_DUMP"]))
    except OrnithError as error:
        result = {"error": str(error)}
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
