# Two commands do everything: `make local-run` and `make test`. Both set themselves up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CONFIG ?= configs/demo.toml
RUN    ?= runs/$(basename $(notdir $(CONFIG)))
RANKS  ?= 2
REPEATS ?= 5
FAULTS ?= 100
SEED   ?= 1
MPIEXEC ?= $(BIN)/mpiexec
export OMP_NUM_THREADS ?= 1

.PHONY: help setup local-run test test-cluster bench bench-scale bench-association bench-location bench-quality soak check bench-gpu clean

help:
	@echo "make local-run                                 the whole pipeline on the embedded demo, on $(RANKS) MPI ranks"
	@echo "make local-run CONFIG=configs/ridgecrest.toml  the same with another configuration (RANKS=4, RUN=dir)"
	@echo "make test                                      the tests"
	@echo "make test-cluster                              the same on a real Slurm with faults, which it starts here (root, Debian)"
	@echo "make soak                                      picking under a hundred faults, killed, stopped, out of room (FAULTS=100 SEED=1)"
	@echo "make bench                                     from files to picks beside SeisBench, on all cores (REPEATS=5)"
	@echo "make bench-association ARGS='--cases ogs'      picks into events: ours beside GMMA and PyOcto; without ARGS, all"
	@echo "make bench-location                            events located: speed, how often ellipsoids hold the truth, OGS"
	@echo "make bench-quality                             how far probabilities of events hold; blasts, duplicates"
	@echo "make bench-scale                               plan, status and audit of a run of a million station-days"
	@echo "make check                                     ruff, mypy --strict, shellcheck, hadolint"
	@echo "make bench-gpu FIGURES=gpu.json                what the engine costs on a GPU, and its bounds; figures as JSON"
	@echo "make clean                                     remove .venv and runs/"

$(VENV)/.ready: env/requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r env/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

setup: $(VENV)/.ready

local-run: $(VENV)/.ready
	$(if $(filter configs/demo.toml,$(CONFIG)),$(BIN)/orcolat demo runs/demo-archive)
	$(BIN)/orcolat weights fetch $(CONFIG)
	$(MPIEXEC) -n $(RANKS) $(BIN)/python -m mpi4py -m pipeline run $(CONFIG) --run-dir $(RUN)

test: $(VENV)/.ready
	$(BIN)/python -m pytest

test-cluster: $(VENV)/.ready
	$(BIN)/orcolat weights fetch phasenet/original
	$(BIN)/python -m pytest tests/cluster -m cluster
	PYTHON=$(BIN)/python bash tests/cluster/containers.sh

soak: $(VENV)/.ready
	$(BIN)/python -m tests.soak --faults $(FAULTS) --seed $(SEED)

bench: $(VENV)/.ready
	$(BIN)/orcolat weights fetch phasenet/original eqtransformer/original
	$(BIN)/python -m tests.bench cpu --repeats $(REPEATS)

bench-scale: $(VENV)/.ready
	$(BIN)/orcolat weights fetch phasenet/original
	$(BIN)/python -m tests.bench_million $(ARGS)

bench-association: $(VENV)/.ready
	$(BIN)/python -m tests.bench_association $(if $(wildcard runs/ridgecrest/picks),--ridgecrest runs/ridgecrest) $(ARGS)

bench-location: $(VENV)/.ready
	$(BIN)/python -m tests.bench_location $(ARGS)

bench-quality: $(VENV)/.ready
	$(BIN)/python -m tests.bench_quality $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x jobs/*.sh env/*.sh tests/cluster/*.sh containers/*.sh
	$(BIN)/hadolint containers/Dockerfile

bench-gpu: $(VENV)/.ready
	$(BIN)/python -m tests.bench_gpu $(FIGURES)

clean:
	rm -rf $(VENV) runs
