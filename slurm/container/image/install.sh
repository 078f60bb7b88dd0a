#!/bin/sh
# Installs the packages of the image, for both recipes. It runs as root in a folder with pyproject.toml, constraints.txt and perhaps a
# pip.conf that only the build uses. LeukoTree's code is not in the image: the repository is mounted when it runs.
set -eu
cd "$(dirname "$0")"

export DEBIAN_FRONTEND=noninteractive
# A build without privileges has no other user for apt.
apt() { apt-get -qq -o APT::Sandbox::User=root "$@"; }
apt update
# git finds the commit for a run's records. DeepSpeed compiles a part of itself at its first start on CPUs.
apt install -y --no-install-recommends ca-certificates g++ git hostname python3.11-dev python3.11-venv
rm -rf /var/lib/apt/lists/*

if [ -f pip.conf ]; then export PIP_CONFIG_FILE="$PWD/pip.conf"; fi
python3.11 -m venv /opt/leukotree
pip() { /opt/leukotree/bin/python -m pip install --quiet --no-cache-dir "$@"; }
pip --upgrade pip # Debian's is twice as slow
# The packages, and only the command and the metadata of LeukoTree.
mkdir -p src/leukotree hpc
touch src/leukotree/__init__.py hpc/__init__.py
pip --constraint constraints.txt torch torchvision .
