#!/bin/bash
# One role on this host, kept up until the run has ended. On every host of the learner's slice, all at once:
#   gcloud compute tpus tpu-vm ssh SLICE --worker=all --command "bash /shared/ornith/runs/ornith-397b-a17b/slurm/pod.sh learner"
# and, on hosts of their own:
#   bash /shared/ornith/runs/ornith-397b-a17b/slurm/pod.sh engine 0        (1, 2, ... on the next ones)
#   bash /shared/ornith/runs/ornith-397b-a17b/slurm/pod.sh driver
# The same commands again go on where the run was. The slice finds its own processes; 32 hosts of 4 devices
# make the mesh of ornith_397b_a17b engine.urls=http://gpu0:30000,http://gpu1:30000.
set -uo pipefail
module load apptainer
run=/shared/ornith/runs/ornith-397b-a17b script=/shared/ornith/runs/ornith-397b-a17b/slurm/pod.sbatch
words=(ornith_397b_a17b engine.urls=http://gpu0:30000,http://gpu1:30000)
host_python=/shared/ornith/venv/bin/python
container=(/shared/ornith/venv/bin/python)
stuck_s=1800 requeue=1
export ORNITH_HOME=/local/scratch/ornith-$(id -un) PYTHONUNBUFFERED=1
mkdir -p "$ORNITH_HOME"
ln -sfn /shared/ornith/images "$ORNITH_HOME/images"
export JAX_COMPILATION_CACHE_DIR=/shared/ornith/runs/.jax-cache
export ORNITH_PORTS="20000 29999"
export ORNITH_PROCESSES=32
# gRPC, by which the learner's processes meet, would go through a proxy.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
export ORNITH_COORDINATOR=auto
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
