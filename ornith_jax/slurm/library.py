"""The part of every job script that is the same: start a role, keep it up, and know what to do when it has ended.

A role runs below `ornith_jax.slurm.watch`, which leaves a mark when the run is `finished` or has `failed`. Exit codes
do not tell: a step that is killed because another rank died has another code than that rank's.

    0   the run is finished                       the job ends well
    1   it cannot go on (a wrong setting, ...)    the job ends, the reason is in RUN/slurm/FAILED
    75  Slurm wants the nodes back                the job is put into the queue again

Written for bash 4 and Slurm 22.05 to 24.11.
"""

LIBRARY = r"""
keeps=() asked=''
stop() { asked=${asked:-$1}; [ "${#keeps[@]}" -gt 0 ] && kill -USR1 "${keeps[@]}" 2>/dev/null; }
trap 'stop USR1' USR1 # time is nearly over, or another job is preferred: --signal=B:USR1
trap 'stop TERM' TERM # scancel

# keep NAME ROLE SRUN_OPTION... : run a role until the run has ended (0, 1), or until this job shall end (75).
keep() {
  local name=$1 role=$2 asked=0 step='' try=0 quick=0 began mark code; shift 2
  trap 'asked=1; [ -n "$step" ] && kill -USR1 "$step" 2>/dev/null' USR1
  while :; do
    mark=$run/slurm/marks/$name.$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.$try; began=$SECONDS
    local -a inside=("${container[@]}"); [ "$role" = driver ] && inside=("$host_python")
    if [ "$role" = learner ]; then meet || return 1; fi
    # USR1 passes through srun to the step; TERM would make srun kill it at once.
    srun "$@" --export=ALL --kill-on-bad-exit=1 --label \
      "${inside[@]}" -m ornith_jax.slurm.watch --run "$run" --name "$name" --mark "$mark" --stuck "$stuck_s" -- \
      -m ornith_jax.cli train "${words[@]}" --run "$run" --role "$role" $([ "$role" = engine ] && echo "--name $name") &
    step=$!
    [ "$asked" = 1 ] && { sleep 2; kill -USR1 "$step" 2>/dev/null; }
    reap "$step"; code=$?
    [ -e "$mark.finished" ] && return 0
    [ -e "$mark.failed" ] && return 1
    [ "$asked" = 1 ] && return 75
    try=$((try + 1)); quick=$((SECONDS - began < 60 ? quick + 1 : 0))
    echo "$(date +%FT%T) $name: the step ended with $code after $((SECONDS - began)) s; starting it again ($try)"
    if [ "$quick" -ge 10 ]; then
      echo "$name: ended within a minute, $quick times in a row; see $run/logs" > "$run/slurm/FAILED"; return 1
    fi
    sleep 5
  done
}

# The exit code of a child. A trap interrupts `wait`, whose code is then not the child's.
reap() {
  local code; wait "$1"; code=$?
  while kill -0 "$1" 2>/dev/null; do wait "$1"; code=$?; done
  if [ "$code" -gt 128 ]; then local again; wait "$1"; again=$?; [ "$again" -ne 127 ] && code=$again; fi
  return "$code"
}

# Where the processes of the learner meet: this node, which holds rank 0, and a port that is free now.
meet() {
  [ "${ORNITH_PROCESSES:-1}" -gt 1 ] || return 0
  ORNITH_COORDINATOR=$(hostname):$("$host_python" -m rollout.ports) || return 1
  export ORNITH_COORDINATOR
}

# The end of the script: wait for all that is kept; then leave, or go back into the queue.
settle() {
  local keep code worst=0
  [ -n "$asked" ] && kill -USR1 "${keeps[@]}" 2>/dev/null
  for keep in "${keeps[@]}"; do
    reap "$keep"; code=$?
    [ "$code" = 1 ] && worst=1
    [ "$code" -gt 1 ] && [ "$worst" = 0 ] && worst=75
  done
  [ "$worst" = 75 ] && [ "$asked" = USR1 ] && again
  exit "$worst"
}

again() {
  local id=$SLURM_JOB_ID; local -a element=()
  if [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
    id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; element=(--array="$SLURM_ARRAY_TASK_ID")
  fi
  echo "$(date +%FT%T) this job shall end before the run does: back into the queue"
  # Slurm ends this script, or the sleep in it, as soon as it has taken the request.
  if [ "$requeue" = 1 ] && scontrol requeue "$id"; then sleep 600; exit 0; fi
  sbatch --parsable "${element[@]}" --dependency=afterany:"$id" "$script" > "$run/slurm/chained/$SLURM_JOB_ID"
}

mkdir -p "$run/slurm/marks" "$run/slurm/chained" "$run/logs"
"""
