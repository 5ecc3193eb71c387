#!/usr/bin/env bash
# Trains and judges what nobody else has claimed, one training (method, fold, seed) at a time; every task of the array runs
# the same command, and the last to end writes tables, adapter and page. A task that ends with 3 left work to others.
#   sbatch --array=0-15 --ntasks=2 --time=04:00:00 jobs/adapt.sh CONFIG RUN_DIR [--set adapt.epochs=40 ...]
#SBATCH --job-name=orcolat-adapt
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
config=${1:?CONFIG is missing: sbatch jobs/adapt.sh CONFIG RUN_DIR}
run_dir=${2:?RUN_DIR is missing: sbatch jobs/adapt.sh CONFIG RUN_DIR}
export ORCOLAT_HOME=${ORCOLAT_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=env/cpu.sh
source "${ORCOLAT_ENV:-$ORCOLAT_HOME/env/cpu.sh}"
"${LAUNCH[@]}" python -m mpi4py -m pipeline adapt "$config" --run-dir "$run_dir" "${@:3}"
