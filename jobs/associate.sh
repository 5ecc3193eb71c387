#!/usr/bin/env bash
# Makes the events of the picks, locates and compares them; ends with 3 while a shard is missing. sbatch jobs/associate.sh RUN_DIR
#SBATCH --job-name=orcolat-associate
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
run_dir=${1:?RUN_DIR is missing: sbatch jobs/associate.sh RUN_DIR}
export ORCOLAT_HOME=${ORCOLAT_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=env/cpu.sh
source "${ORCOLAT_ENV:-$ORCOLAT_HOME/env/cpu.sh}"
"${LAUNCH[@]}" python -m mpi4py -m pipeline associate "$run_dir"
"${LAUNCH[@]}" python -m mpi4py -m pipeline locate "$run_dir"
"${LAUNCH[@]}" python -m mpi4py -m pipeline compare "$run_dir"
