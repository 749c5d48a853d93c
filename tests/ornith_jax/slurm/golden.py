"""Four clusters' worth of scripts, as files to read and to compare with. `python -m tests.ornith_jax.slurm.golden`
writes them again.
"""

import re
from pathlib import Path

from ornith_jax.slurm.preamble import Job
from ornith_jax.slurm.render import render
from ornith_jax.verbs.slurm import make_job
from tests.slurm_local.runs import args_of

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = Path(__file__).parent / "golden"
V5P_HOST = 4  # chips

# name -> (mode, nodes in all, experiment, overrides, the topology of its row in docs/scale.md)
CASES = {
    "9b-one-node": ("single", 1, "ornith_9b", ["mesh.fsdp=2", "train.rows=2", "engine.replicas=6"], "h200:2"),
    "35b-a3b-4-nodes": (
        "single",
        4,
        "ornith_35b_a3b",
        ["mesh.expert=2", "mesh.context=8", "train.rows=2", "engine.replicas=8"],
        "h200:16",
    ),
    "397b-a17b-64-nodes": (
        "split",
        64,
        "ornith_397b_a17b",
        ["mesh.expert=16", "mesh.context=8", "train.rows=16", "engine.replicas=48"],
        "h200:128",
    ),
    "397b-a17b-pod": ("pod", 32, "ornith_397b_a17b", ["engine.urls=http://gpu0:30000,http://gpu1:30000"], "v5p:4x4x8"),
}


def sites() -> dict[str, str]:
    """The two of docs/hpc.md, and one of TPU hosts made of the first."""
    gpu, cpu = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/hpc.md").read_text(), re.DOTALL)
    tpu = gpu.replace('chip = "h200"', 'chip = "v5p"').replace("devices_per_node = 8", f"devices_per_node = {V5P_HOST}")
    return {"gpu": gpu, "cpu": cpu, "tpu": tpu.replace('container = "/shared/ornith/ornith.sif"\n', "")}


def job_of(case: str, folder: Path) -> Job:
    _, _, experiment, overrides, topology = CASES[case]
    (folder / "site.toml").write_text(sites()["gpu" if topology.startswith("h200") else "tpu"])
    args = args_of(experiment, folder / "site.toml", *overrides)
    return make_job(args)


def rendered(case: str, folder: Path) -> dict[str, str]:
    return render(job_of(case, folder), CASES[case][0])


if __name__ == "__main__":
    import tempfile

    for case in CASES:
        (GOLDEN / case).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            for file, text in rendered(case, Path(name)).items():
                (GOLDEN / case / file).write_text(text)
