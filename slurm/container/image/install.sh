#!/bin/sh
# What goes into the image, for each recipe: run as root in the build's own folder, which holds pyproject.toml, constraints.txt and
# perhaps a pip.conf for the build alone. The image holds the packages; LeukoTree's code is the repository's, mounted when it runs.
set -eu
cd "$(dirname "$0")"

export DEBIAN_FRONTEND=noninteractive
# A build without privileges has no other user that apt could become.
apt() { apt-get -qq -o APT::Sandbox::User=root "$@"; }
apt update
# git names the commit in a run's records; DeepSpeed compiles a part of itself at its first start on CPUs.
apt install -y --no-install-recommends ca-certificates g++ git hostname python3.11-dev python3.11-venv
rm -rf /var/lib/apt/lists/*

if [ -f pip.conf ]; then export PIP_CONFIG_FILE="$PWD/pip.conf"; fi
python3.11 -m venv /opt/leukotree
pip() { /opt/leukotree/bin/python -m pip install --quiet --no-cache-dir "$@"; }
pip --upgrade pip # Debian's is twice as slow
# The packages, and of LeukoTree its command and its description alone.
mkdir -p src/leukotree hpc
touch src/leukotree/__init__.py hpc/__init__.py
pip --constraint constraints.txt torch torchvision .
