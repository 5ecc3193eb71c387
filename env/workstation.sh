# shellcheck shell=bash
# One machine without Slurm: the same scripts as on a cluster, `ORCOLAT_ENV=env/workstation.sh bash jobs/array.sh RUN_DIR`.

export PATH="${ORCOLAT_VENV:-$ORCOLAT_HOME/.venv}/bin:$PATH"
export OMP_NUM_THREADS=1
# shellcheck disable=SC2034 # the scripts in jobs/ use it
LAUNCH=(mpiexec -n "${RANKS:-2}")
