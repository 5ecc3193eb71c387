#!/usr/bin/env bash
# Picks what nobody else has claimed: each task of the array runs the same command. `orcolat submit` fills in the rest,
# or by hand, from the project's folder: sbatch --array=0-7 --ntasks=4 jobs/array.sh RUN_DIR
#SBATCH --job-name=orcolat-pick
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
run_dir=${1:?RUN_DIR is missing: sbatch jobs/array.sh RUN_DIR}
export ORCOLAT_HOME=${ORCOLAT_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=env/cpu.sh
source "${ORCOLAT_ENV:-$ORCOLAT_HOME/env/cpu.sh}"
"${LAUNCH[@]}" python -m mpi4py -m pipeline pick "$run_dir"
