#!/usr/bin/env bash
# The main job: search the hyperparameters of a study, run its outer folds with the chosen values, write the report.
#
#   sbatch slurm/sweep.sh [STUDY] [key=value ...] [option of `leukotree sweep` ...]     on SLURM, from the repository's root
#   bash slurm/sweep.sh [STUDY] [key=value ...] [option ...]                           the same on this machine, without SLURM
#
# STUDY is sweeps/phantom.yaml if not given. SITE=NAME takes slurm/site/NAME.yaml for everything that differs between
# clusters; sbatch itself gets its options from it like this:
#   SITE=NAME sbatch $(.venv/bin/python -m hpc.site NAME --sbatch) slurm/sweep.sh STUDY
# On SLURM the allocation becomes one Ray cluster for the search; every fold is a job of its own, and so is the report.
# Submitting the same study again continues it.
#
#SBATCH --job-name=leukotree-sweep
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
# Whole nodes: `ray stop`, with which symmetric-run ends, stops every Ray process of this user on the node.
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
# Two minutes before the time limit the job requeues itself; the search continues where it was.
#SBATCH --signal=B:USR1@120

set -euo pipefail

fail() {
    echo "sweep.sh: $1" >&2
    exit "${2:-1}"
}

# sbatch runs a copy of this script in a spool folder, so its own path says nothing there.
home=${LEUKOTREE_HOME:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}
cd "$home" || fail "$home: no such folder; set LEUKOTREE_HOME to the repository's root" 2
[[ -f hpc/site.py ]] || fail "$PWD is not the repository's root; submit from there or set LEUKOTREE_HOME" 2
if [[ -d .venv/bin ]]; then
    export PATH="$PWD/.venv/bin:$PATH" # Ray starts `ray` by name
fi

study=${1:-sweeps/phantom.yaml}
(($# == 0)) || shift
overrides=() # key=value changes the study, for every step; the other arguments are options of the sweep
options=()
for argument; do
    if [[ $argument == *=* && $argument != -* ]]; then overrides+=("$argument"); else options+=("$argument"); fi
done
plan=("$study" "${overrides[@]}")
[[ -f $study ]] || fail "$study: no such study file; sweeps/ has some" 2
command -v leukotree >/dev/null || fail "command leukotree not found: run \`make install\`, or put its venv on PATH" 2
site=(${SITE:+--site "$SITE"})

# Runs a command that submits jobs as if from outside of this one: a job that inherits our SLURM_* variables is bound to our
# CPUs and takes our task count for its own.
outside_job() {
    local name hide=()
    for name in $(compgen -e); do
        case $name in
            SLURM_CONF) ;;
            SLURM_* | SLURMD_* | SBATCH_* | SRUN_*) hide+=(-u "$name") ;;
        esac
    done
    env "${hide[@]}" "$@"
}

# Our IPv4 address as the other nodes see it.
head_address() {
    local address=
    if [[ -n ${LEUKOTREE_INTERFACE:-} ]]; then
        address=$(ip -4 -o addr show dev "$LEUKOTREE_INTERFACE" | awk '{split($4, part, "/"); print part[1]; exit}')
    else
        address=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ {print $1; exit}') || true
        [[ -n $address ]] || address=$(hostname -I | awk '{print $1}')
    fi
    [[ -n $address ]] || fail "no IPv4 address found; set \`interface\` in the site file"
    echo "$address"
}

# What each node runs: $1 is the address of Ray's head, the rest is the command, which the head runs. symmetric-run returns 0
# also where Ray did not start, so the command leaves its exit code in a file. Ray makes its folder writable for everybody:
# it lies in a private one, with a short path (a socket's path has at most 107 bytes), and decoded images lie there too. What
# Ray says goes to a file, shown if the command did not run; the command itself writes to our output. The head's exit code
# counts; at its end it ends the step on the other nodes, which would wait for it for another minute.
# shellcheck disable=SC2016 # expanded on the node
on_each_node='
    private=$(mktemp -d "${LEUKOTREE_SCRATCH:-/tmp}/lt.XXXXXX") || exit 1
    leave() {
        trap "" TERM USR2
        if ((SLURM_NODEID == 0)); then scancel --signal=USR2 "$SLURM_JOB_ID.$SLURM_STEP_ID"; fi 2>/dev/null
        # The process group of symmetric-run, which leaves `ray start` behind when it is ended.
        { kill -KILL -- "-$ray" && wait "$ray"; } 2>/dev/null
        ray stop --force >/dev/null 2>&1
        rm -rf "$private"
        exit $((SLURM_NODEID == 0 ? $1 : 0))
    }
    trap "leave 143" TERM USR2
    export LEUKOTREE_CACHE=${LEUKOTREE_CACHE:-$private/cache} RAY_TMPDIR=$private LEUKOTREE_CODE=$private/code LEUKOTREE_OUT=/proc/$$/fd/1
    options=(--num-cpus="$SLURM_CPUS_ON_NODE" --object-store-memory=536870912 --temp-dir="$private/ray")
    if ((SLURM_NODEID == 0)); then options+=(--include-dashboard=false); fi
    head=$1; shift
    set -m # a process group of its own, for leave()
    ray symmetric-run --address "$head" --min-nodes "$SLURM_NNODES" "${options[@]}" -- \
        bash -c "\"\$@\" >>\"\$LEUKOTREE_OUT\" 2>&1; echo \$? >\"\$LEUKOTREE_CODE\"" leukotree "$@" \
        >"$private/log" 2>&1 </dev/null &
    ray=$!
    set +m
    wait "$ray" # in the background: bash delivers a signal only between commands or in `wait`
    if [[ -s $LEUKOTREE_CODE ]]; then leave "$(<"$LEUKOTREE_CODE")"; fi
    cut -c1-300 "$private/log" | tail -n 30 >&2
    echo "sweep.sh: Ray ended on $(hostname) without being asked to, see above" >&2
    leave 1'

requeue() {
    ((${SLURM_RESTART_COUNT:-0} < 20)) || fail "time limit near after 20 restarts: not requeued; submit again to continue"
    echo "sweep.sh: time limit near, requeued; the search will continue"
    scontrol requeue "$SLURM_JOB_ID" || fail "requeue refused; submit again to continue"
    wait
    exit 75
}

# The search on a Ray cluster over the nodes of this job. Ray runs anyone's code who reaches its port, hence the token, new
# for each job and only in the environment of this step.
sweep_on_slurm() {
    local address code=0
    address=$(head_address):$((20000 + SLURM_JOB_ID % 10000))
    trap requeue USR1
    RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') \
        RAY_USAGE_STATS_ENABLED=0 RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=120 \
        srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
        bash -c "$on_each_node" on_each_node "$address" \
        leukotree sweep "${plan[@]}" --ray-address "$address" "${options[@]}" &
    wait $! || code=$?
    trap - USR1
    ((code == 0)) || fail "the search of $study ended with exit code $code" "$code"
}

# The folds as jobs of their own, and the report after them, whatever became of them.
submit_folds_and_report() {
    local answer jobs small
    # Code 1 says that a run has failed already; the others are queued, and the report will say which.
    answer=$(outside_job leukotree folds "${plan[@]}" --on slurm --no-wait --json "${site[@]}") || (($? == 1)) || return
    [[ $answer == "{"* ]] || fail "folds of $study: not submitted, see above"
    jobs=$(python -c 'import json, sys
print(":".join(dict.fromkeys(job.split("_")[0] for job in json.loads(sys.argv[1])["waiting"].values())))' "$answer")
    if [[ -z $jobs ]]; then
        leukotree report "${plan[@]}"
        return
    fi
    read -ra small < <(python -m hpc.site ${SITE:+"$SITE"} --sbatch --small)
    outside_job sbatch "${small[@]}" --job-name=leukotree-report --output=slurm-%j.out --dependency="afterany:$jobs" \
        --wrap "leukotree report ${plan[*]@Q}" \
        || fail "report job refused; when jobs $jobs are done: leukotree report ${plan[*]@Q}"
    echo "sweep.sh: folds submitted as ${jobs//:/, }; the report follows them"
}

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    leukotree sweep "${plan[@]}" "${options[@]}"
    code=0
    leukotree folds "${plan[@]}" --on local "${site[@]}" || code=$?
    ((code <= 1)) || exit "$code" # 1: some runs failed, the report says which
    leukotree report "${plan[@]}"
    exit "$code"
fi

setup=$(python -m hpc.site ${SITE:+"$SITE"}) || exit 2
set +eu # a cluster's module files are not written for these
eval "$setup"
set -eu
sweep_on_slurm
submit_folds_and_report
