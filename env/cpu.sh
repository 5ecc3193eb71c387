# shellcheck shell=bash
# A CPU cluster with Slurm. What differs from site to site stands here and nowhere else: copy this file, change it, and name
# the copy in slurm.env of your site file (configs/leonardo.toml shows one), or in $ORCOLAT_ENV for jobs handed in by hand.

# module load gcc/12                              # if the system has no C++ compiler
export PATH="${ORCOLAT_VENV:-$ORCOLAT_HOME/.venv}/bin:$PATH"
export ORCOLAT_CACHE="${ORCOLAT_CACHE:-$HOME/.cache/orcolat}" # compiled kernels: a folder that all nodes see
export ORCOLAT_WEIGHTS="${ORCOLAT_WEIGHTS:-$HOME/.cache/orcolat/weights}"
export TMPDIR="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"               # of the node itself
export OMP_NUM_THREADS=1 # compute.threads is what counts

# What starts the ranks. `srun --mpi=list` shows what the site's Slurm can do; MPICH's wheel wants pmi2.
MPI_TYPE="${MPI_TYPE:-pmi2}"
# shellcheck disable=SC2034 # the scripts in jobs/ use it
LAUNCH=(srun --mpi="$MPI_TYPE" --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
# In a container, which looks for weights and cache there: (containers/README.md says what it cannot do)
# LAUNCH+=(apptainer exec --bind "/data,$TMPDIR,$ORCOLAT_WEIGHTS:/weights:ro,$ORCOLAT_CACHE:/cache" "$HOME/orcolat.sif")
