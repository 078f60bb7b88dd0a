#!/bin/sh
# The first program in a container: it lets a command take LeukoTree's code from the repository, and nothing of the host's Python.
#
#   guest.sh COMMAND...
here=$(dirname "$0")
code=${here%/slurm/container}
unset LD_PRELOAD PYTHONHOME VIRTUAL_ENV
export PYTHONPATH="$code:$code/src" PYTHONNOUSERSITE=1 LEUKOTREE_INSIDE=yes
if [ -n "${LEUKOTREE_RELAY:-}" ]; then export PATH="$here/bin:$PATH"; fi
exec "$@"
