#!/usr/bin/env bash
# The main job: search the hyperparameters of a study, run its outer folds with the chosen values, write the report.
#
#   sbatch slurm/sweep.sh [STUDY] [key=value ...] [option of `leukotree sweep` ...]     on SLURM, from the repository's root
#   bash slurm/sweep.sh [STUDY] [key=value ...] [option ...]                           the same on this machine, without SLURM
#
# STUDY is sweeps/phantom.yaml if not given. SITE=NAME takes slurm/site/NAME.yaml for everything that differs between
# clusters; sbatch itself gets its options from it like this:
#   SITE=NAME sbatch $(.venv/bin/python -m hpc.site NAME --sbatch) slurm/sweep.sh STUDY
# On SLURM the allocation becomes one Ray cluster for the search; every run of an outer fold is a job of its own,
# and so is the report.
# Submitting the same study again continues it, whatever ended it. Several such jobs may share a node: each has a Ray of its own,
# with its own ports, folder and token. `extra: {exclusive: true}` in the site file asks for whole nodes.
#
#SBATCH --job-name=leukotree-sweep
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --ntasks-per-node=1
# Two minutes before the time limit the sweep is asked to leave, and the job requeues itself; the search continues where it was.
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

# A port that is free here now.
free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
}

# What each node runs: $1 and $2 are address and port of Ray's head, $3 is the head's private folder, the rest is the command,
# which the head runs once its Ray is up. Nothing here speaks to a Ray that it did not start: `ray start --block` takes all that it
# has started with it when it ends, also by SIGKILL, and workers end with their raylet. Ray makes its folder writable for everybody:
# it lies in a private one, with a short path (a socket's path has at most 107 bytes), and decoded images lie there too. What Ray
# says goes to a file, shown if the command did not run. The head's exit code counts, 69 where Ray did not come up or has ended; at
# its end it ends the step on the other nodes.
# shellcheck disable=SC2016 # expanded on the node
on_each_node='
    head=$1 port=$2 private=$3 ray= driver=
    shift 3
    is_head() { ((SLURM_NODEID == 0)); }
    is_head || private=$(mktemp -d "${LEUKOTREE_SCRATCH:-/tmp}/lt.XXXXXX") || exit 1
    end() { # ends a process group
        if [[ -n $1 ]]; then { kill -KILL -- "-$1" && wait "$1"; } 2>/dev/null; fi
    }
    leave() {
        trap "" TERM USR2
        if is_head; then scancel --signal=USR2 "$SLURM_JOB_ID.$SLURM_STEP_ID"; fi 2>/dev/null
        end "$driver"
        end "$ray"
        # Workers end only when they miss their raylet, and may make the folder again until then: they have their logs open in it.
        for _ in {1..20}; do
            left=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "$private/*" 2>/dev/null | cut -d/ -f3 | sort -u)
            if [[ -n $left ]]; then kill -KILL $left; fi 2>/dev/null
            rm -rf "$private" 2>/dev/null
            if [[ -z $left && ! -e $private ]]; then break; fi
            sleep 0.5
        done
        exit $(($(is_head && echo "$1" || echo 0)))
    }
    told_to_leave() { # SLURM kills what is left after half a minute
        trap "" TERM USR2
        if [[ -n $driver ]]; then
            kill -TERM "$driver" 2>/dev/null
            for _ in {1..20}; do kill -0 "$driver" 2>/dev/null && sleep 1; done
        fi
        leave 143
    }
    say() { cut -c1-300 "$private/log" | tail -n 30 >&2; echo "sweep.sh: $1" >&2; }
    trap told_to_leave TERM USR2
    export LEUKOTREE_CACHE=${LEUKOTREE_CACHE:-$private/cache} RAY_TMPDIR=$private PYTHONUNBUFFERED=1
    options=(--block --num-cpus="$SLURM_CPUS_ON_NODE" --object-store-memory=536870912 --temp-dir="$private/ray"
        --min-worker-port=0 --max-worker-port=0) # any free port; by default all Rays of a node would take the same
    if is_head; then
        options+=(--head --node-ip-address="$head" --port="$port" --include-dashboard=false)
    else
        options+=(--address="$head:$port")
        for _ in {1..240}; do (: </dev/tcp/"$head/$port") 2>/dev/null && break; sleep 0.5; done
    fi
    set -m # a process group for each, for end()
    ray start "${options[@]}" >"$private/log" 2>&1 </dev/null &
    ray=$!
    if is_head; then
        for _ in {1..240}; do
            grep -q "Ray runtime started" "$private/log" && break
            kill -0 "$ray" 2>/dev/null || break
            sleep 0.5
        done
        if ! grep -q "Ray runtime started" "$private/log" || ! kill -0 "$ray" 2>/dev/null; then
            say "Ray did not start on $(hostname), see above"
            leave 69
        fi
        "$@" </dev/null &
        driver=$!
        echo "$driver" >"$private/driver"
    fi
    set +m
    # In the background: bash delivers a signal only between commands or in `wait`.
    wait -n ${driver:+"$driver"} "$ray"
    code=$?
    if [[ -n $driver ]] && kill -0 "$ray" 2>/dev/null; then leave "$code"; fi
    say "Ray ended on $(hostname) without being asked to, see above"
    sleep 1
    if [[ -n $driver ]] && ! kill -0 "$driver" 2>/dev/null; then leave 1; fi # somebody ended both
    leave 69'

near_the_end() { # the sweep notes what is left, and leaves with code 75
    asked=yes
    for _ in {1..60}; do
        [[ -s $private/driver ]] && break
        sleep 1
    done
    kill -TERM "$(<"$private/driver")" 2>/dev/null || true
}

# Whether SLURM counts this start of the job as running, and has not begun to end it.
is_running() {
    [[ $(squeue --all --noheader --jobs "$SLURM_JOB_ID" --Format=state,restartcnt | xargs) == "RUNNING ${SLURM_RESTART_COUNT:-0}" ]]
}

requeue() {
    ((${SLURM_RESTART_COUNT:-0} < 20)) || fail "asked to leave after 20 restarts: not requeued; submit again to continue" 75
    echo "sweep.sh: asked to leave, requeued; the search will continue"
    scontrol requeue "$SLURM_JOB_ID" || fail "requeue refused; submit again to continue" 75
    exit 75
}

# The search on a Ray cluster over the nodes of this job. Ray runs anyone's code who reaches its port, hence the token, new
# for each job and only in the environment of this step.
sweep_on_slurm() {
    local address port step code=0
    address=$(head_address)
    port=$(free_port)
    private=$(mktemp -d "${LEUKOTREE_SCRATCH:-/tmp}/lt.XXXXXX")
    asked=
    trap near_the_end USR1
    RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') RAY_USAGE_STATS_ENABLED=0 \
        srun --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
        bash -c "$on_each_node" on_each_node "$address" "$port" "$private" \
        leukotree sweep "${plan[@]}" --ray-address "$address:$port" --ray-nodes "$SLURM_NNODES" "${options[@]}" &
    step=$!
    wait "$step" || code=$?
    if [[ -n $asked ]]; then # the signal has ended `wait`, and not the step
        code=0
        wait "$step" || code=$?
    fi
    trap '' USR1 # what follows takes seconds
    rm -rf "$private"
    return "$code"
}

search() {
    local code=0
    for _ in 1 2 3; do # another process may have taken the port in between, and the search goes on from its records
        code=0
        sweep_on_slurm || code=$?
        ((code == 69)) || break
    done
    case $code in
        0) ;;
        75) requeue ;;
        143) # SIGTERM: a preemption that grants some time, or an end that somebody wants
            if is_running; then requeue; else fail "the search of $study was ended; submit again to continue" "$code"; fi
            ;;
        *) fail "the search of $study ended with exit code $code" "$code" ;;
    esac
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
search
submit_folds_and_report
