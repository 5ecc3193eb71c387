#!/bin/sh
# What the images consist of, for Dockerfile and orcolat.def alike. Run as root, in the folder of the sources, while an
# image is built: `install.sh system`, `install.sh libraries`, `install.sh project`. Afterwards nothing is downloaded.
#
# TORCH_INDEX                   PyTorch's index, for CPUs or for a version of CUDA; empty: what pip finds itself
# PIP_NO_INDEX, PIP_FIND_LINKS  pip's own, for a site without internet: a folder of wheels
set -eu
VENV=/opt/orcolat

# A compiler comes along, because the kernels are compiled for the very processor that they run on.
system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -y -q --no-install-recommends python3 python3-venv g++
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
  useradd --uid 1000 --home-dir /cache --no-create-home --shell /bin/sh orcolat 2>/dev/null ||
    echo "user 1000 is there already"
  mkdir -p /config /archive /weights /runs /cache
  chmod 1777 /cache
}

# The project's dependencies, and no others, in the versions of the lock.
libraries() {
  python3 -m venv "$VENV"
  python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    >/tmp/libraries.txt
  "$VENV/bin/pip" install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --constraint env/requirements.lock --requirement /tmp/libraries.txt mpich setuptools
  rm -r /tmp/libraries.txt "$VENV"/lib/python3*/site-packages/torch/include "$VENV"/lib/python3*/site-packages/torch/test
}

project() {
  "$VENV/bin/pip" install --no-cache-dir --no-deps --no-build-isolation .
}

"$1"
