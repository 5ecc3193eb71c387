#!/usr/bin/env bash
# Yesterday, from the archive to the report, and one line that says how it went: nightly.sh CONFIG [--site SITE] [--set ...],
# paths in full. README.md ("Every night") has a line for cron and one for scrontab.
#SBATCH --job-name=orcolat-nightly
#SBATCH --open-mode=append
set -euo pipefail
export ORCOLAT_HOME=${ORCOLAT_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
# shellcheck source=env/cpu.sh
source "${ORCOLAT_ENV:-$ORCOLAT_HOME/env/cpu.sh}"
cd "$ORCOLAT_HOME"
"${LAUNCH[@]}" python -m mpi4py -m pipeline nightly --for "${ORCOLAT_DAY:-yesterday}" "$@"
