#!/usr/bin/env bash
# The main job in three commands, each shown before it runs. Called by `make demo` with the folder of the programs.
set -euo pipefail
bin=${1:?usage: demo.sh FOLDER_OF_PROGRAMS}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
  printf '$ matsci-hpc %s\n' "$*"
  "$bin/matsci-hpc" "$@"
}

say "1. Two MPI ranks write 20,000 point clouds with known symmetry as HDF5 shards."
show submit data_prep/symmetry_demo.yaml --site local --ranks 2

say "2. Two ranks pretrain the E(n)-GNN to name the point group of a cloud (about two minutes)."
show submit job_templates/runs/demo.yaml --site local --ranks 2

say "3. Loss, throughput and where the time went, in one HTML file."
show report runs/demo

say "What to try next"
cat <<'TEXT'
  open runs/demo/report.html in a browser
  matsci-hpc shards info datasets/symmetry_demo          what the ranks wrote
  your own crystals: README.md, "Your own crystals"     a folder or archive of CIF files, and a table
  matsci-hpc submit job_templates/runs/demo.yaml run_dir=runs/demo2 --site slurm_cpu --nodes 2 --dry-run
                                                         the same run on a Slurm cluster: prints the job script
  (programs are in .venv/bin; `source .venv/bin/activate` puts them on PATH)
TEXT
