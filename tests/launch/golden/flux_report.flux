#!/bin/bash
# flux: --job-name=demo-report
# flux: --nodes=1
# flux: --nslots=1
# flux: --cores-per-slot=1
# flux: --output=/scratch/ada/demo/report.flux.out
# matsci-hpc VERSION: report demo-report
set -euo pipefail

# The script is the first program of a Flux instance of its own, whose attribute `jobid` is the job's number outside.
job_id=$(flux job id --to=dec "$(flux getattr jobid)")
output=/scratch/ada/demo
status_file=/scratch/ada/demo/report.status
mkdir -p -- "$output"
# Passed on by the life before this one.
life=${MATSCI_LIFE:-1}
first_id=${MATSCI_FIRST:-$job_id}
waited_for=${MATSCI_WAITED_FOR:-}
unset MATSCI_LIFE MATSCI_FIRST MATSCI_WAITED_FOR
# A job that runs again under the same number, after a requeue or the loss of a node, is in its next life.
if [ -r "$status_file" ]; then
  said_id='' said_life='' said_state=''
  read -r said_id said_life said_state _ <"$status_file" || true
  if [ "$said_id" = "$job_id" ] && [ "$said_state" != queued ] && [[ $said_life =~ ^[0-9]+$ ]]; then
    life=$((10#$said_life + 1))
  fi
fi
script=/scratch/ada/demo/report.flux
# Puts the script into the queue again and tells the number of the new job. What is passed on needs no quotes.
submit_next() { # LIFE WHEN ID
  local answer
  answer=$(flux --parent batch --env=MATSCI_LIFE="$1" --env=MATSCI_FIRST="$first_id" --env=MATSCI_WAITED_FOR="$3" \
    --dependency="$2:$3" "$script") && flux job id --to=dec "$answer"
}

exec >>/scratch/ada/demo/flux-"$first_id".out 2>&1

# How the job stands, in one line for `matsci-hpc jobs`: number, life, state.
say_state() {
  if printf '%s %s %s\n' "$1" "$2" "$3" >"$status_file.part"; then mv -f -- "$status_file.part" "$status_file" || true; fi
}
# What fails before the ranks start, a line of the site above all, ends this shell at once.
starting=yes
# shellcheck disable=SC2329 # the trap calls it
on_exit() {
  local code=$?
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

# What the jobs before this one make.
marker=/scratch/ada/demo/DONE
if [ ! -e "$marker" ]; then
  # What makes it may go on under a new number; then this job queues up again, behind that one. Twice behind the same
  # job would be for ever.
  said_id='' said_state=''
  if [ -r /scratch/ada/demo/job.status ]; then read -r said_id _ said_state _ </scratch/ada/demo/job.status || true; fi
  case $said_state in
    queued | running | again*)
      if [[ $said_id =~ ^[0-9A-Za-z._-]+$ ]] && [ "$said_id" != "$waited_for" ]; then
        if next=$(submit_next "$life" afterok "$said_id"); then
          say_state "$next" "$life" queued
          echo "$marker is not there yet; job $next waits for job $said_id"
          exit 0
        fi
      fi
      ;;
  esac
  finish 3 "failed: $marker is not there, so what makes it has not finished"
fi

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

starting=no
code=0
/opt/venv/bin/python -m matsci_hpc report /scratch/ada/demo || code=$?
if ((code != 0)); then finish "$code" "failed: exit code $code"; fi
finish 0 "complete"
