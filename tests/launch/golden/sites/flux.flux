#!/bin/bash
# flux: --job-name=demo
# flux: --nodes=1
# flux: --nslots=4
# flux: --cores-per-slot=8
# flux: --time-limit=14400s
# flux: --output=/scratch/ada/demo/job.flux.out
# matsci-hpc VERSION: train demo
set -euo pipefail

# The script is the first program of a Flux instance of its own, whose attribute `jobid` is the job's number outside.
job_id=$(flux job id --to=dec "$(flux getattr jobid)")
output=/scratch/ada/demo
status_file=/scratch/ada/demo/job.status
mkdir -p -- "$output"
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
script=/scratch/ada/demo/job.flux
# Puts the script into the queue again and tells the number of the new job. What is passed on needs no quotes.
submit_next() { # LIFE WHEN ID
  local answer
  answer=$(flux --parent batch --env=MATSCI_LIFE="$1" --env=MATSCI_FIRST="$first_id" --env=MATSCI_WAITED_FOR="$3" \
    --dependency="$2:$3" "$script") && flux job id --to=dec "$answer"
}

exec >>/scratch/ada/demo/flux-"$first_id".out 2>&1

# Near its time limit this shell gets USR1. Training sees the file, saves and ends with exit code 0. A STOP that is
# there already (`set -C`) was somebody's wish, and stays.
time_is_up=no
late=no
launcher_pid=''
ender_pid=''
# shellcheck disable=SC2329 # the trap calls it
on_time_up() {
  if [ "$time_is_up" = yes ]; then return; fi
  time_is_up=yes
  (set -C && echo 'time limit' >"$output/STOP") 2>/dev/null || true
  # When ranks that are still there must go: one that hangs, or a launcher that waits, would take this shell along over
  # the limit, and with it all further lives.
  late_s=$((SECONDS + 270))
  # A signal that waited for a line of the site, or came early, as Slurm's may by a minute: the limit itself counts.
  if [ -z "$launcher_pid" ] || ((late_s < 14370 && 14370 <= late_s + 60)); then
    late_s=14370
  fi
  if [ -n "$launcher_pid" ]; then end_ranks; fi
}
# Looks after ranks that were asked to stop. It waits by `read` from a pipe that says nothing: no `sleep` stays behind.
# shellcheck disable=SC2329 # the trap calls it
end_ranks() {
  said=no
  while kill -0 "$launcher_pid" 2>/dev/null; do
    if ((SECONDS >= late_s)) && [ "$said" = no ]; then
      said=yes
      echo "ranks did not stop in time: this script ends them, so that the job can go on"
    fi
    if ((SECONDS >= late_s + 10)); then
      kill -KILL "$launcher_pid" || true
    elif ((SECONDS >= late_s)); then
      kill -TERM "$launcher_pid" || true
    fi
    read -rt 1 <> <(:) || true
  done 2>/dev/null &
  ender_pid=$!
}
trap on_time_up USR1
# A STOP of ours that no rank has seen.
take_back_stop() {
  if [ -e "$output/STOP" ] && [ "$(head -n 1 -- "$output/STOP")" = 'time limit' ]; then rm -f -- "$output/STOP"; fi
}

# Nobody warns this shell alone before the time limit, so it sets its own clock. `read` from a pipe that says nothing
# waits without a `sleep` that would stay behind.
(read -rt 14100 <> <(:) || kill -USR1 $$) >/dev/null 2>&1 &
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

# What a killed life has left is no reason to stop; a STOP of anybody else is.
if [ "$time_is_up" = no ]; then take_back_stop; fi
if [ -e "$output/STOP" ] && [ "$time_is_up" = no ]; then
  rm -f -- "$output/STOP"
  finish 0 "stopped: by hand, before this life began; submit again to go on"
fi
rm -f -- "$output/STOPPED"

# Step of the newest checkpoint, -1 without any. Names with anything but digits are unfinished ones.
progress() {
  local newest=-1 path step
  for path in "$output"/checkpoints/step-*; do
    step=${path##*/step-}
    if [[ $step =~ ^[0-9]+$ ]] && ((10#$step > newest)); then newest=$((10#$step)); fi
  done
  echo "$newest"
}
before=$(progress)

export MALLOC_MMAP_MAX_=0
export MALLOC_TRIM_THRESHOLD_=17179869184
export MALLOC_TOP_PAD_=67108864
export HDF5_USE_FILE_LOCKING=FALSE
export PYTHONUNBUFFERED=1
export OMP_PROC_BIND=false
export KMP_BLOCKTIME=1
export OMP_NUM_THREADS=8
export MKL_NUM_THREADS=8
export MASTER_ADDR="${nodes%%$'\n'*}"
# Below the ports that the kernel hands out by itself (32768 and up).
export MASTER_PORT=$((20000 + job_id % 12000))

# By what the ranks were started, by named prefixes: a whole environment holds tokens.
env | grep -E '^(SLURM_|PBS_|LSB_|FLUX_|PALS_|OMPI_|PMI_|PMIX_|I_MPI_|CCL_|FI_|NCCL_|UCX_|OMP_|KMP_|MKL_|GOMP_|HDF5_|CUDA_|ROCR_|HIP_|ZE_|GLOO_|TORCH_|MALLOC_)' | grep -Ev '^[^=]*(TOKEN|JWT|SECRET|PASSW|CREDENTIAL|KEY|AUTH)' | sort >"${status_file%.status}-$job_id-$life.env" || true

starting=no
flux run -o exit-on-error -N 1 -n 4 -c 8 -g 0 -o cpu-affinity=per-task \
  /opt/venv/bin/python -m matsci_hpc train /home/ada/demo.yaml &
# In the background, because bash runs a trap only between commands or in `wait`, which the trap ends early.
launcher_pid=$!
# The signal may have come before there was anything to look after.
if [ "$time_is_up" = yes ] && [ -z "$ender_pid" ]; then end_ranks; fi
while kill -0 "$launcher_pid" 2>/dev/null; do wait "$launcher_pid" || true; done
code=0
wait "$launcher_pid" || code=$?
# Ranks that were ended have not failed.
if [ "$time_is_up" = yes ] && ((code != 0 && SECONDS >= late_s)); then late=yes; fi

take_back_stop
if ((code != 0)) && [ "$late" = no ]; then finish "$code" "failed: exit code $code; not started again"; fi
if [ -e "$output/DONE" ]; then finish 0 "complete"; fi
reason=
if [ -e "$output/STOPPED" ]; then reason=$(head -n 1 -- "$output/STOPPED"); fi
if [ "$reason" = 'by hand' ]; then
  finish 0 "stopped: by hand; submit again to go on"
fi

after=$(progress)
# A life that was ended long before its limit had no chance, which is no fault of the run.
cut_short=no
if { [ "$time_is_up" = yes ] || [[ $reason == signal* ]]; } && ((SECONDS < 14010)); then cut_short=yes; fi
if ((after <= before)) && [ "$cut_short" = no ]; then
  finish 3 "given up: no new checkpoint in this life (newest step $after); allow more time or save more often"
fi
where="step $after"
if ((after < 0)); then where="the start"; fi
if ((life >= max_lives)); then finish 3 "given up: after $life lives, at $where"; fi
echo "stopped at $where; the next life goes on from there"
say_state "$job_id" "$life" "again: stopped at $where"
if ! next=$(submit_next $((life + 1)) afterany "$job_id"); then
  finish 3 "given up: this cluster does not let a job submit the next one; submit it again to go on"
fi
say_state "$next" $((life + 1)) queued
echo "the next life is job $next"

# submitted by: flux batch /scratch/ada/demo/job.flux
