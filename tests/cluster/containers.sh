#!/usr/bin/env bash
# Build the CPU image as containers/Dockerfile has it, on a base from this system's own package sources, and run it: as
# another user, without network, 4 ranks inside; unpacked by Charliecloud, ranks started from outside; by Podman, read-only.
# Needs root, for it installs what is missing of buildah and the others. What cannot be tried is said in one line.
#   PYTHON  a python with pip, mpich and the project's libraries (default: .venv/bin/python)
#   STATE   a folder that is kept: the base, the wheels, the weights (default: /var/tmp/orcolat-containers)
#   MUST    set: what cannot be tried is a failure
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
STATE=${STATE:-/var/tmp/orcolat-containers}
IMAGE=localhost/orcolat:cpu
begun=$SECONDS

left_out() { # the rest goes on, unless nothing may be left out
  echo "containers: skipped: $1"
  [ -z "${MUST:-}" ] || { echo "FAIL MUST is set: nothing may be skipped"; exit 1; }
}
skip() { left_out "$1"; exit 0; }
said() { echo "ok   $1 [$((SECONDS - begun)) s]"; }
fail() { echo "FAIL $1"; tail -n 40 "$STATE/log" >&2 2>/dev/null || true; exit 1; }

# --- tools
[ "$(id -u)" = 0 ] || skip "building an image this way needs root"
missing=()
for tool in mmdebstrap:mmdebstrap buildah:buildah ch-run:charliecloud-runtime ${MUST:+podman:podman runc:runc}; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
mkdir -p "$STATE"
: >"$STATE/log"
if ((${#missing[@]})); then
  command -v apt-get >/dev/null || skip "no ${missing[*]}, and no apt-get to install them"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >>"$STATE/log" 2>&1 || skip "${missing[*]} cannot be installed here"
fi
# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$codename:$version" in
bookworm:3.11 | noble:3.12) ;;
*) skip "wheels for Python $version do not suit a base of $codename" ;;
esac
buildah=(buildah --root "$STATE/store" --runroot "$STATE/runroot")
leave() {
  R="$STATE/slurm" tests/cluster/slurm_down.sh
  "${buildah[@]}" rm --all >/dev/null 2>&1 || true
  "${buildah[@]}" rmi --prune --force >/dev/null 2>&1 || true # what an earlier call built
  rm -rf "$STATE/work" "$STATE/unpacked"
}
trap leave EXIT
leave
mkdir -p "$STATE/work"

# --- base: this release, from where this system has its packages
if [ ! -s "$STATE/base.tar" ]; then
  sources=$(grep -lE "^(deb |Suites:).*\b$codename\b" /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources 2>/dev/null | head -n 1) || true
  mmdebstrap --quiet --variant=minbase "$codename" "$STATE/base.tar.part" ${sources:+"$sources"} >>"$STATE/log" 2>&1 ||
    skip "no base: mmdebstrap cannot reach the packages of $codename"
  mv "$STATE/base.tar.part" "$STATE/base.tar"
fi
said "base: $(du -h "$STATE/base.tar" | cut -f1)"

# --- wheels: by this machine's pip with its settings, of which the image shall know nothing
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$STATE/wheels" -r env/requirements.lock \
  >>"$STATE/log" 2>&1 || fail "pip wheel"
said "wheels: $(du -sh "$STATE/wheels" | cut -f1)"

# --- build
base=$("${buildah[@]}" from scratch)
"${buildah[@]}" add --quiet "$base" "$STATE/base.tar" / >/dev/null
"${buildah[@]}" commit --quiet "$base" localhost/orcolat-base >/dev/null
"${buildah[@]}" bud --isolation chroot --network host --layers=false -f containers/Dockerfile \
  --build-arg BASE=localhost/orcolat-base --build-arg TORCH_INDEX= \
  --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/wheels -v "$STATE/wheels:/wheels:ro" \
  -t "$IMAGE" . >>"$STATE/log" 2>&1 || fail "build"
said "built: $("${buildah[@]}" images --format '{{.Size}}' "$IMAGE")"

# --- what the runs share: weights and cache from outside, one folder for the runs of each user
"$PYTHON" -m pipeline weights fetch phasenet/original >>"$STATE/log" 2>&1 || fail "weights"
mkdir -p "$STATE/weights" "$STATE/work"/{inside,outside}/{runs,cache}
store=$("$PYTHON" -c 'from pipeline.models.weights import store; print(store())')
cp -r "$store/phasenet" "$STATE/weights/"
chown -R 1000:1000 "$STATE/work/inside"
container=$("${buildah[@]}" from "$IMAGE")
alone=(unshare --net sh -c 'ip link set lo up 2>/dev/null; exec "$@"' sh) # no network, but loopback
in_image=("${alone[@]}" "${buildah[@]}" run --isolation chroot -v "$PWD/configs:/config:ro" -v "$STATE/weights:/weights:ro"
  -v "$STATE/work/inside/runs:/runs" -v "$STATE/work/inside/cache:/cache" "$container" --)

# --- inside: who, with what, from where
[ "$("${in_image[@]}" id -u)" = 1000 ] || fail "not user 1000"
said "runs as user 1000"
"${in_image[@]}" python -c '
import socket
try: socket.create_connection(("192.0.2.1", 80), 2)
except OSError: pass
else: raise SystemExit("there is a network")' || fail "network"
"${in_image[@]}" /opt/orcolat/bin/pip list --format freeze >"$STATE/work/freeze"
"$PYTHON" - "$STATE/work/freeze" <<'PY' || fail "other versions than env/requirements.lock"
import re
import sys
from pathlib import Path

def versions(path):
    pairs = re.findall(r"^([\w.-]+)==([^+\s]+)", Path(path).read_text(), re.M)  # 2.13.0+cpu is 2.13.0
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}

there, lock = versions(sys.argv[1]), versions("env/requirements.lock")
wrong = {name: version for name, version in there.items() if name not in ("orcolat", "pip") and lock.get(name) != version}
sys.exit(f"not in the lock: {wrong}" if wrong or len(there) < 40 else 0)
PY
said "its libraries are those of the lock"

# --- inside: 4 ranks, the whole demo, and its association again on Dask workers as in dask-workers.yaml
"${in_image[@]}" sh -c '
set -e
orcolat config check /config/demo.toml
orcolat demo /runs/demo-archive
mpiexec -n 4 python -m mpi4py -m pipeline doctor /config/demo.toml
mpiexec -n 4 python -m mpi4py -m pipeline run /config/demo.toml --run-dir /runs/demo' >>"$STATE/log" 2>&1 || fail "demo inside"
said "mpiexec -n 4 inside, without network: doctor and demo"
# shellcheck disable=SC2016
"${in_image[@]}" sh -c '
cp -r /runs/demo /runs/dask
rm -r /runs/dask/catalogue
dask scheduler --port 8786 --no-dashboard & started=$!
for worker in 1 2; do
  dask worker tcp://127.0.0.1:8786 --nthreads 1 --nworkers 1 --memory-limit 0 --no-dashboard --local-directory /tmp --death-timeout 120 &
  started="$! $started"
done
orcolat associate /runs/dask --dask tcp://127.0.0.1:8786
code=$?
for pid in $started; do kill $pid; wait $pid; done
exit $code' >>"$STATE/log" 2>&1 || fail "Dask inside"
same() {
  for table in catalogue/events catalogue/assignments; do
    cmp "$STATE/work/inside/runs/demo/$table.parquet" "$1/$table.parquet" || fail "$table differs: $2"
  done
  said "$2: the same catalogue"
}
same "$STATE/work/inside/runs/dask" "dask scheduler and two dask workers inside"

# --- unpacked, by Charliecloud, the ranks started from outside
"${buildah[@]}" inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" >"$STATE/work/environment"
cp -a "$("${buildah[@]}" mount "$container")" "$STATE/unpacked"
export USER=${USER:-root}
mpiexec="$(cd "$(dirname "$PYTHON")" && pwd)/mpiexec"
unpacked=(--set-env="$STATE/work/environment" -b "$PWD/configs:/config" -b "$STATE/weights:/weights"
  -b "$STATE/work/outside/runs:/runs" -b "$STATE/work/outside/cache:/cache" "$STATE/unpacked" --)
ranks=(python -m mpi4py -m pipeline)
ch-run "${unpacked[@]}" orcolat demo /runs/demo-archive >>"$STATE/log" 2>&1 || fail "ch-run"
"$mpiexec" -n 2 ch-run --join --join-ct=2 "${unpacked[@]}" "${ranks[@]}" run /config/demo.toml --run-dir /runs/demo \
  >>"$STATE/log" 2>&1 || fail "ranks from outside"
same "$STATE/work/outside/runs/demo" "ch-run, mpiexec -n 2 outside"
apart=$("$mpiexec" -n 2 ch-run "${unpacked[@]}" "${ranks[@]}" doctor 2>&1) && fail "the doctor did not see that ranks are apart"
grep -q "ch-run --join" <<<"$apart" || fail "the doctor knows no remedy for ranks that are apart"
said "ranks in namespaces of their own: the doctor says so"
if R="$STATE/slurm" PORT=17900 NODES=2 tests/cluster/slurm_up.sh >>"$STATE/log" 2>&1; then
  # Both nodes are this machine: MPI must not take shared memory for a way from one to the other.
  SLURM_CONF="$STATE/slurm/slurm.conf" MPIR_CVAR_NOLOCAL=1 UCX_TLS=tcp,self srun --mpi=pmi2 --kill-on-bad-exit=1 -N 2 -n 4 \
    ch-run "${unpacked[@]}" "${ranks[@]}" run /config/demo.toml --run-dir /runs/slurm >>"$STATE/log" 2>&1 || fail "ranks of srun"
  same "$STATE/work/outside/runs/slurm" "srun --mpi=pmi2, 4 ranks on 2 nodes"
else
  left_out "ranks of srun, for no Slurm can be started here"
fi

# --- by Podman: any user, nothing of the image can be written
if command -v podman >/dev/null && command -v runc >/dev/null; then
  mkdir -p "$STATE/work/podman"
  chown 4242:4242 "$STATE/work/podman"
  podman --root "$STATE/store" --runroot "$STATE/runroot" --runtime runc --cgroup-manager cgroupfs run --rm --network none \
    --read-only --user 4242:4242 --ulimit nofile=20000:20000 --ulimit nproc=20000:20000 --shm-size 1g --tmpfs /tmp \
    -v "$PWD/configs:/config:ro" -v "$STATE/weights:/weights:ro" -v "$STATE/work/inside/runs:/runs:ro" \
    -v "$STATE/work/podman:/cache" "$IMAGE" mpiexec -n 2 python -m mpi4py -m pipeline doctor /config/demo.toml --run-dir /cache/run \
    >>"$STATE/log" 2>&1 || fail "Podman"
  said "Podman, read-only, user 4242, no network: doctor"
else
  left_out "Podman, which is not installed"
fi
