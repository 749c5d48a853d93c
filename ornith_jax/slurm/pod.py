"""Without Slurm: one script for every host of a TPU pod slice, and for whatever else can start a command on a host."""

from __future__ import annotations

from ornith_jax.slurm.preamble import Job, preamble

USAGE = """\
# One role on this host, kept up until the run has ended. On every host of the learner's slice, all at once:
#   gcloud compute tpus tpu-vm ssh SLICE --worker=all --command "bash {path} learner"
# and, on hosts of their own:
#   bash {path} engine 0        (1, 2, ... on the next ones)
#   bash {path} driver
# The same commands again go on where the run was. The slice finds its own processes; {hosts} hosts of {devices} devices
# make the mesh of {words}.
"""

KEEP = r"""
role=${1:?learner, engine or driver} name=$role; [ "$role" = engine ] && name=engine-${2:?the number of this engine}
[ "$role" = driver ] && container=("$host_python")
asked=0 child='' try=0
trap 'asked=1; [ -n "$child" ] && kill -USR1 "$child" 2>/dev/null' USR1 TERM INT
mkdir -p "$run/slurm/marks" "$run/logs"
while :; do
  mark=$run/slurm/marks/$name.$(hostname).$$.$try
  "${container[@]}" -m ornith_jax.slurm.watch --run "$run" --name "$name" --mark "$mark" --stuck "$stuck_s" -- \
    -m ornith_jax.cli train "${words[@]}" --run "$run" --role "$role" $([ "$role" = engine ] && echo "--name $name") \
    >> "$run/logs/$name.$(hostname).out" 2>&1 &
  child=$!
  while kill -0 "$child" 2>/dev/null; do wait "$child"; done
  [ -e "$mark.finished" ] && exit 0
  [ -e "$mark.failed" ] && exit 1
  [ "$asked" = 1 ] && exit 75
  try=$((try + 1)); sleep 5
done
"""


def render_pod(job: Job) -> dict[str, str]:
    """{"pod.sh": script}"""
    part = job.layout.learner
    usage = USAGE.format(
        path=job.run / "slurm" / "pod.sh", hosts=part.nodes, devices=part.devices, words=" ".join(job.words)
    )
    # jax knows the places of a slice's processes; engines must not listen to this host alone.
    several = "export ORNITH_COORDINATOR=auto"
    return {"pod.sh": "\n".join(["#!/bin/bash", usage.rstrip("\n"), *preamble(job, "pod"), several]) + KEEP}
