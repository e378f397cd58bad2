#!/bin/bash
# flux: --job-name=symmetry
# flux: --nodes=2
# flux: --nslots=8
# flux: --cores-per-slot=1
# flux: --time-limit=1800s
# matsci-hpc VERSION: prep symmetry
set -euo pipefail

# The script is the first program of a Flux instance of its own, whose attribute `jobid` is the job's number outside.
job_id=$(flux job id --to=dec "$(flux getattr jobid)")
output='/scratch/ada/data sets'
status_file='/scratch/ada/data sets.status'
mkdir -p -- /scratch/ada
# Passed on by the life before this one.
life=${MATSCI_LIFE:-1}
first_id=${MATSCI_FIRST:-$job_id}
unset MATSCI_LIFE MATSCI_FIRST MATSCI_WAITED_FOR
# A job that runs again under the same number, after a requeue or the loss of a node, is in its next life.
if [ -r "$status_file" ]; then
  said_id='' said_life='' said_state=''
  read -r said_id said_life said_state _ <"$status_file" || true
  if [ "$said_id" = "$job_id" ] && [ "$said_state" != queued ] && [[ $said_life =~ ^[0-9]+$ ]]; then
    life=$((10#$said_life + 1))
  fi
fi
script='/scratch/ada/data sets.flux'
# Puts the script into the queue again and tells the number of the new job. What is passed on needs no quotes.
submit_next() { # LIFE WHEN ID
  local answer
  answer=$(flux --parent batch --env=MATSCI_LIFE="$1" --env=MATSCI_FIRST="$first_id" --env=MATSCI_WAITED_FOR="$3" \
    --dependency="$2:$3" "$script") && flux job id --to=dec "$answer"
}

exec >>/scratch/ada/flux-"$first_id".out 2>&1

# Near its time limit this shell gets USR1. Finished shards are on disk; the one in work is lost.
time_is_up=no
launcher_pid=''
ender_pid=''
# shellcheck disable=SC2329 # the trap calls it
on_time_up() {
  if [ "$time_is_up" = yes ]; then return; fi
  time_is_up=yes
  # When ranks that are still there must go: one that hangs, or a launcher that waits, would take this shell along over
  # the limit, and with it all further lives.
  late_s=$((SECONDS + 96))
  # A signal that waited for a line of the site, or came early, as Slurm's may by a minute: the limit itself counts.
  if [ -z "$launcher_pid" ] || ((late_s < 1776 && 1776 <= late_s + 60)); then
    late_s=1776
  fi
  if [ -n "$launcher_pid" ]; then end_ranks; fi
}
# TERM again and again: a process that has just been forked can lose a signal on its way to become the launcher. It waits
# by `read` from a pipe that says nothing: no `sleep` stays behind.
# shellcheck disable=SC2329 # the trap calls it
end_ranks() {
  said=no
  while kill -0 "$launcher_pid" 2>/dev/null; do
    if ((SECONDS >= late_s)) && [ "$said" = no ]; then
      said=yes
      echo "ranks did not stop in time: this script ends them, so that the job can go on"
    fi
    if ((SECONDS < late_s)); then kill -TERM "$launcher_pid" || true; else kill -KILL "$launcher_pid" || true; fi
    read -rt 1 <> <(:) || true
  done 2>/dev/null &
  ender_pid=$!
}
trap on_time_up USR1

# Nobody warns this shell alone before the time limit, so it sets its own clock. `read` from a pipe that says nothing
# waits without a `sleep` that would stay behind.
(read -rt 1680 <> <(:) || kill -USR1 $$) >/dev/null 2>&1 &
clock_pid=$!

# How the job stands, in one line for `matsci-hpc jobs`: number, life, state.
say_state() {
  if printf '%s %s %s\n' "$1" "$2" "$3" >"$status_file.part"; then mv -f -- "$status_file.part" "$status_file" || true; fi
}
# What fails before the ranks start, a line of the site above all, ends this shell at once.
starting=yes
# shellcheck disable=SC2329 # the trap calls it
on_exit() {
  local code=$?
  kill "$clock_pid" 2>/dev/null || true
  if [ -n "$ender_pid" ]; then kill "$ender_pid" 2>/dev/null || true; fi
  if ((code != 0)) && [ "$starting" = yes ]; then
    say_state "$job_id" "$life" "failed: exit code $code before the ranks started"
  fi
}
trap on_exit EXIT
finish() { # CODE STATE
  starting=no
  say_state "$job_id" "$life" "$2"
  if (($1 != 0)); then echo "$2" >&2; else echo "$2"; fi
  exit "$1"
}
cd -- /home/ada
nodes=$(flux hostlist --expand instance)
nodes=${nodes// /$'\n'}
echo "life $life of job $job_id on ${nodes//$'\n'/ }, $(date -u +%FT%TZ)"
say_state "$job_id" "$life" running
max_lives=100
if ((life > max_lives)); then finish 3 "given up: this is life $life, and the site allows $max_lives"; fi

# Number of finished shards.
progress() {
  local path number=0
  for path in "$output"/shard-*.h5; do
    if [ -e "$path" ]; then number=$((number + 1)); fi
  done
  echo "$number"
}
before=$(progress)

export MALLOC_MMAP_MAX_=0
export MALLOC_TRIM_THRESHOLD_=17179869184
export MALLOC_TOP_PAD_=67108864
export HDF5_USE_FILE_LOCKING=FALSE
export PYTHONUNBUFFERED=1
export OMP_PROC_BIND=false
export KMP_BLOCKTIME=1
export OMP_NUM_THREADS=1
export MKL_NUM_THREADS=1
export MASTER_ADDR="${nodes%%$'\n'*}"
# Below the ports that the kernel hands out by itself (32768 and up).
export MASTER_PORT=$((20000 + job_id % 12000))

# By what the ranks were started, by named prefixes: a whole environment holds tokens.
env | grep -E '^(SLURM_|PBS_|LSB_|FLUX_|PALS_|OMPI_|PMI_|PMIX_|I_MPI_|CCL_|FI_|NCCL_|UCX_|OMP_|KMP_|MKL_|GOMP_|HDF5_|CUDA_|ROCR_|HIP_|ZE_|GLOO_|TORCH_|MALLOC_)' | grep -Ev '^[^=]*(TOKEN|JWT|SECRET|PASSW|CREDENTIAL|KEY|AUTH)' | sort >"${status_file%.status}-$job_id-$life.env" || true

starting=no
flux run -o exit-on-error -N 2 -n 8 -c 1 -g 0 \
  /opt/venv/bin/python -m matsci_hpc prep /home/ada/runs/demo.yaml &
# In the background, because bash runs a trap only between commands or in `wait`, which the trap ends early.
launcher_pid=$!
# The signal may have come before there was anything to look after.
if [ "$time_is_up" = yes ] && [ -z "$ender_pid" ]; then end_ranks; fi
while kill -0 "$launcher_pid" 2>/dev/null; do wait "$launcher_pid" || true; done
code=0
wait "$launcher_pid" || code=$?

if [ -e "$output/dataset.json" ] && ((code == 0)); then finish 0 "complete"; fi
if [ "$time_is_up" = no ]; then
  if ((code == 0)); then code=3; fi
  finish "$code" "failed: exit code $code; submit again to go on"
fi

after=$(progress)
# A life that was ended long before its limit had no chance, which is no fault of the run.
cut_short=no
if ((SECONDS < 1590)); then cut_short=yes; fi
if ((after <= before)) && [ "$cut_short" = no ]; then
  finish 3 "given up: no new shard in this life ($after so far); allow more time or make shards smaller"
fi
where="shard $after"
if ((life >= max_lives)); then finish 3 "given up: after $life lives, at $where"; fi
echo "stopped at $where; the next life goes on from there"
say_state "$job_id" "$life" "again: stopped at $where"
if ! next=$(submit_next $((life + 1)) afterany "$job_id"); then
  finish 3 "given up: this cluster does not let a job submit the next one; submit it again to go on"
fi
say_state "$next" $((life + 1)) queued
echo "the next life is job $next"
