#!/usr/bin/env bash
# Writes the report, of whatever there is, and ends as `orcolat status` does: 3 if anything is missing. If nothing is, it
# ends as `orcolat gate` does: 4 if the gate failed.
#SBATCH --job-name=orcolat-report
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
run_dir=${1:?RUN_DIR is missing: sbatch jobs/report.sh RUN_DIR}
export ORCOLAT_HOME=${ORCOLAT_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=env/cpu.sh
source "${ORCOLAT_ENV:-$ORCOLAT_HOME/env/cpu.sh}"
python -m pipeline account "$run_dir"
gate=0
python -m pipeline gate "$run_dir" || gate=$?
python -m pipeline report "$run_dir"
python -m pipeline status "$run_dir"
exit "$gate"
