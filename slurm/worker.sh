#!/usr/bin/env bash
# A worker of an elastic search: a node of its Ray for as long as this job lasts. The search submits and ends it (hpc/search/elastic.py).
#
#   sbatch ... slurm/worker.sh SHARED
#
# SHARED is the folder in which slurm/sweep.sh writes where the head of the search is. A worker whose search has ended ends at once.
#
#SBATCH --job-name=leukotree-worker
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --no-requeue
# Two minutes before the time limit its trials save. They continue on other workers.
#SBATCH --signal=B:USR1@120
set -uo pipefail

shared=$1
host=${SLURMD_NODENAME:-$(hostname -s)} # the name that SLURM uses

# Ends this worker because its node cannot begin. The reason $1 goes to the log and to the search, in one line.
cannot_begin() {
    echo "worker.sh: $host: $1" >&2
    echo "$host $1" >>"$shared/bad-nodes"
    exit 70
}

unset "${!SQUEUE_@}" # variables of the user, which would hide jobs
cd "$SLURM_SUBMIT_DIR" 2>/dev/null || cannot_begin "no folder $SLURM_SUBMIT_DIR"
# shellcheck source=/dev/null # it sets the names of the next line
source "$shared/head" 2>/dev/null || exit 0 # the search has ended
: "${head_job:?}" "${SITE=}" "${address:?}" "${port:?}" "${token:?}" "${copy:=$PWD}" "${python:?}" "${ray:?}"

# Takes the code of the search (see slurm/sweep.sh).
use_code() {
    export LEUKOTREE_CODE=$copy PYTHONSAFEPATH=1
    if [[ ${PYTHONPATH:-}: != "$copy:"* ]]; then export PYTHONPATH=$copy${PYTHONPATH:+:$PYTHONPATH}; fi
}
use_code
# shellcheck source=slurm/container/enter.sh
source "$copy/slurm/container/enter.sh"
enter_site "$SITE"
"${here[@]}" "$python" -m hpc.slurm.own_job --head "$head_job" 2>/dev/null
if (($? == 3)); then # any other code: if something is wrong, a later step reports it
    echo "worker.sh: job $head_job, which searches, has ended"
    exit 0
fi
setup=$("${here[@]}" "$python" -m hpc.slurm.site ${SITE:+"$SITE"} 2> >(tail -n 1 >&2)) || cannot_begin "$python does not run here; make the same environment on each node"
set +u # the module files of a cluster may break under it
eval "$setup"
set -u
use_code # a module may have set Python's path
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$token RAY_USAGE_STATS_ENABLED=0
exec "${here[@]}" bash "$copy/slurm/node.sh" worker "$address" "$port" "$shared" "$ray"
