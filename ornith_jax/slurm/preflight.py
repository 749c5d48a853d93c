"""Preflight: every check on every node of every tier, before a run is submitted; a table, and an exit code.

One small job for each tier, on the nodes and with the options that the tier will have. Each node writes
RUN/slurm/preflight/STAMP/TIER/NODE.report.json; here they are collected and compared.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ornith_jax.slurm import node, peers
from ornith_jax.slurm.layout import Part
from ornith_jax.slurm.node import Finding
from ornith_jax.slurm.preamble import Job, preamble
from ornith_jax.slurm.render import directives
from ornith_jax.slurm.site import ROLES
from ornith_jax.slurm.submit import CHECKS, cancel, run_command, state_of, write_scripts
from rollout.run_dir import read_json, write_json

JOB_MINUTES = 4
QUEUE_S = 900.0  # for the small jobs to start
OF_EVERY_TIER = ("source",)
"""Versions that all nodes of a run must share; the others only within a tier."""


def on_node(
    out: Path, *, tier: str, nodes: int, inside: Sequence[str], platform: str, devices: int, job: Mapping[str, str]
) -> list[Finding]:
    """All checks of this node; also written to `out`/NODE.report.json for the others.

    Args:
        job: run_root, scratch, ports ("first last" or ""), sandbox, container (whether the tier has one).
    """
    ports = tuple(map(int, job["ports"].split()))
    seen, facts = node.check_devices(inside, platform, devices)
    found = [seen] if devices else [replace(seen, ok=bool(facts), said="none needed" if facts else seen.said)]
    found += [node.check_scratch(Path(job["scratch"])), node.check_shared(Path(job["run_root"]))]
    found.append(node.check_ports(ports))
    if job["container"]:
        found.append(node.check_apptainer())
    if tier == "driver":
        found += node.check_sandboxes(job["sandbox"])
    found += peers.check_peers(out / "peers", nodes, ports)
    report = {"findings": [asdict(f) for f in found], "facts": facts | node.host_facts()}
    write_json(out / f"{peers.this_node()}.report.json", report)
    return found


def render_preflight(job: Job, stamp: str, sandbox: str) -> dict[str, str]:
    """{preflight-TIER.sbatch: script}, one for each tier that the run has."""
    parts = {"learner": job.layout.learner, "engine": job.layout.engine, "driver": job.layout.driver}
    return {
        f"preflight-{tier}.sbatch": _script(job, tier, parts[tier], stamp, sandbox) for tier in ROLES if parts[tier]
    }


def _script(job: Job, tier: str, part: Part | None, stamp: str, sandbox: str) -> str:
    assert part is not None
    site = job.site
    head = directives(job, tier, part, "", tier=f"{CHECKS}{tier}")
    head = [line for line in head if not line.startswith("--time=")]
    head += [f"--time={JOB_MINUTES}", "--no-requeue", f"--output={job.run}/logs/preflight-{tier}.out"]
    inside = "${container[@]}" if tier != "driver" else "$host_python"
    options = {
        "--out": str(job.run / "slurm" / "preflight" / stamp / tier),
        "--tier": tier,
        "--nodes": str(part.nodes),
        "--platform": "gpu" if site.gpus and part.devices else "cpu",
        "--devices": str(part.devices_per_node),
        "--run-root": site.run_root,
        "--scratch": site.scratch,
        "--ports": " ".join(map(str, site.ports)),
        "--sandbox": sandbox,
        "--container": site.container if tier != "driver" else "",
    }
    words = " ".join(f"{name} {shlex.quote(value)}" for name, value in options.items())
    # All of the node, in one task.
    step = f"srun --nodes={part.nodes} --ntasks={part.nodes} --ntasks-per-node=1 --export=ALL --label"
    env = "" if site.gpus else f"export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={max(part.devices_per_node, 1)}"
    body = [f'{step} "$host_python" -m ornith_jax.cli preflight {words} -- "{inside}"']
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in head), *preamble(job, ""), env, *body]) + "\n"


def preflight(job: Job, sandbox: str) -> tuple[str, bool]:
    """(the table, whether all is well). Submits, waits, collects. Raises OrnithError when Slurm refuses a job."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    files = render_preflight(job, stamp, sandbox)
    numbers = {}
    for path in write_scripts(job.run, files):
        numbers[path.stem.removeprefix("preflight-")] = run_command(["sbatch", "--parsable", str(path)]).split(";")[0]
    _wait(numbers)
    folder = job.run / "slurm" / "preflight" / stamp
    reports = {tier: read_reports(folder / tier) for tier in numbers}
    parts = {"learner": job.layout.learner, "engine": job.layout.engine, "driver": job.layout.driver}
    missing = {
        tier: part.nodes - len(reports[tier]) for tier, part in parts.items() if part is not None and tier in reports
    }
    return table(reports, missing, job.run / "logs")


def _wait(numbers: Mapping[str, str]) -> None:
    """Until all have ended; what has not started in QUEUE_S is cancelled, and told as missing."""
    until, said = time.monotonic() + QUEUE_S, ""
    while True:
        states = {tier: state_of(number) for tier, number in numbers.items()}
        now = ", ".join(f"{tier} {state.lower()}" for tier, state in states.items())
        if now != said:
            print(f"preflight: {now}", file=sys.stderr, flush=True)
            said = now
        waiting = [tier for tier, state in states.items() if state != "OVER"]
        if not waiting:
            return
        if time.monotonic() > until:
            for tier in waiting:
                cancel(numbers[tier])
            return
        time.sleep(1)


def read_reports(folder: Path) -> dict[str, dict]:
    """{node: its report}"""
    found = {path.name.removesuffix(".report.json"): read_json(path) for path in sorted(folder.glob("*.report.json"))}
    return {name: report for name, report in found.items() if report is not None}


def table(reports: Mapping[str, Mapping[str, dict]], missing: Mapping[str, int], logs: Path) -> tuple[str, bool]:
    """What failed, where, and how to mend it; what is well, in a line for each check."""
    lines, well = [], True
    for tier, nodes in reports.items():
        lines.append(f"{tier}: {len(nodes)} nodes")
        for finding, where in _merged(nodes):
            lines += _row(finding, where)
            well &= finding.ok
        if missing.get(tier):
            gone = Finding(
                "no answer",
                False,
                f"{missing[tier]} nodes",
                f"see {logs}/preflight-{tier}.out, and `squeue --me --start`",
            )
            lines, well = [*lines, *_row(gone, "")], False
    for finding in [f for tier, nodes in reports.items() for f in skew(nodes, tier)] + _skew_of_all(reports):
        lines, well = [*lines, *_row(finding, "")], False
    return "\n".join([*lines, "all is well" if well else "not ready; the lines with FAIL say why"]), well


def skew(nodes: Mapping[str, dict], tier: str, only: Sequence[str] = ()) -> list[Finding]:
    """A finding for each version that is not the same on all nodes, naming those that differ from most."""
    found = []
    names = sorted({name for report in nodes.values() for name in report["facts"]})
    for name in names:
        by_value = defaultdict(list)
        for where, report in nodes.items():
            by_value[report["facts"].get(name, "none")].append(where)
        if len(by_value) > 1 and (not only or name in only):
            common = Counter({value: len(where) for value, where in by_value.items()}).most_common(1)[0][0]
            odd = "; ".join(f"{value} on {_some(where)}" for value, where in by_value.items() if value != common)
            said = f"{tier}: {common} on most, but {odd}"
            mend = "install the same everywhere: one environment on the shared file system, or one container image"
            found.append(Finding(f"version of {name}", False, said, mend))
    return found


def _skew_of_all(reports: Mapping[str, Mapping[str, dict]]) -> list[Finding]:
    """Between tiers: one node stands for each, its own skew has been told."""
    firsts = {f"{tier} ({name})": report for tier, nodes in reports.items() for name, report in list(nodes.items())[:1]}
    return skew(firsts, "tiers", OF_EVERY_TIER)


def _merged(nodes: Mapping[str, dict]) -> list[tuple[Finding, str]]:
    """Findings of all nodes; those that are well, once for each check."""
    by_check: dict[str, list[tuple[Finding, str]]] = defaultdict(list)
    for where, report in nodes.items():
        for values in report["findings"]:
            by_check[values["check"]].append((Finding(**values), where))
    rows = []
    for found in by_check.values():
        bad = [(f, where) for f, where in found if not f.ok]
        rows += bad or [(found[0][0], "" if len(found) == 1 else f"all {len(found)}, such as {found[0][1]}")]
    return rows


def _row(finding: Finding, where: str) -> list[str]:
    line = f"  {'ok  ' if finding.ok else 'FAIL'}  {finding.check:<20} {where + ': ' if where else ''}{finding.said}"
    return [line] if finding.ok else [line, f"        mend: {finding.mend}"]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
