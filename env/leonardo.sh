# shellcheck shell=bash
# Leonardo Booster at CINECA: 32 cores, 4 GPUs and 512 GB a node. Not run there yet: see `module avail python` for the names.

# A cron job has neither the command `module` nor $WORK: that one comes from here, this one from the crontab.
: "${WORK:?env/leonardo.sh: \$WORK, the folder of your account, is not set; under cron write a line WORK=/leonardo_work/YOUR_ACCOUNT into the crontab}"
if ! type module >/dev/null 2>&1; then
  if [ ! -r /etc/profile.d/modules.sh ]; then
    echo "env/leonardo.sh: no command \`module\`, and no /etc/profile.d/modules.sh to get it from; run this on Leonardo, or correct the path here" >&2
    exit 2
  fi
  set +u # not written for it
  # shellcheck disable=SC1091
  source /etc/profile.d/modules.sh
  set -u
fi
module load python/3.11.6--gcc--8.5.0 # any 3.11 or 3.12
module load gcc/12.2.0                # compiles the kernels for the CPUs
export PATH="${ORCOLAT_VENV:-$ORCOLAT_HOME/.venv}/bin:$PATH"
export ORCOLAT_CACHE="${ORCOLAT_CACHE:-$WORK/orcolat-cache}"
export ORCOLAT_WEIGHTS="${ORCOLAT_WEIGHTS:-$WORK/orcolat-weights}" # compute nodes have no internet: fetch on a login node
export TMPDIR="${TMPDIR:-/tmp}" # in the node's memory; Slurm sets it, and slurm.gres = "tmpfs:20g" makes it larger
export OMP_NUM_THREADS=1

MPI_TYPE="${MPI_TYPE:-pmi2}"
# shellcheck disable=SC2034 # the scripts in jobs/ use it
LAUNCH=(srun --mpi="$MPI_TYPE" --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
# In a container, which looks for weights and cache there: (containers/README.md says what it cannot do)
# LAUNCH+=(apptainer exec --nv --bind "$WORK,$TMPDIR,$ORCOLAT_WEIGHTS:/weights:ro,$ORCOLAT_CACHE:/cache" "$WORK/orcolat.sif")
