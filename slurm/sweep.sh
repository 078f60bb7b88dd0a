#!/usr/bin/env bash
# The main job: searches the hyperparameters of a study, runs its outer folds with the chosen values, and writes the report.
#
#   leukotree submit STUDY --site NAME [key=value ...]                                 on SLURM, from a login node
#   sbatch [options] slurm/sweep.sh [STUDY] [--site NAME] [key=value ...] [option ...]    the same by hand, from the repository's root
#   bash slurm/sweep.sh [STUDY] [key=value ...] [option ...]    on this machine without SLURM, or inside `salloc` or `srun --pty`
#
# The default of STUDY is sweeps/phantom.yaml. Other options are those of `leukotree sweep`. The site (also: SITE=NAME) is
# slurm/site/NAME.yaml, with everything that differs between clusters. `leukotree submit` takes the options of sbatch from there.
#
# On SLURM the job's nodes form one Ray cluster for the search. Each run of an outer fold is a job of its own, and so is the report.
# With `elastic: N` in the site, or LEUKOTREE_ELASTIC=N, the job is small: it runs the head of Ray, and the other nodes of Ray are
# up to N small jobs (slurm/worker.sh), each of which may begin and end at any time.
#
# To continue a study, submit it again, whatever ended it. Several such jobs may share a node: each has its own Ray with its own
# ports, folder and token. `extra: {exclusive: true}` in the site file asks for whole nodes.
#
#SBATCH --job-name=leukotree-sweep
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --ntasks-per-node=1
# Two minutes before the time limit the sweep is asked to stop, and the job queues itself again. The search then continues.
#SBATCH --signal=B:USR1@120

set -euo pipefail

REPORTED=70 # exit code if another program has already printed what is wrong

say() {
    echo "sweep.sh: $1" >&2
}

fail() {
    say "$1"
    exit "${2:-1}"
}

unset "${!SQUEUE_@}" # variables of the user, which would hide jobs

# sbatch runs a copy of this script in a spool folder, so the path of the script is not that of the repository.
home=${LEUKOTREE_HOME:-${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}}
if [[ -n ${SLURM_STEP_ID:-} && -z ${LEUKOTREE_HOME:-} ]]; then home=$(dirname "${BASH_SOURCE[0]}")/..; fi # inside srun: no copy
cd "$home" || fail "$home: no such folder; set LEUKOTREE_HOME to the repository's root" 2
if [[ -n ${LEUKOTREE_HOME:-} ]]; then export LEUKOTREE_HOME=$PWD; fi # a job that follows is submitted from here
[[ -f hpc/slurm/site.py ]] || fail "$PWD is not the repository's root; submit from there or set LEUKOTREE_HOME" 2
if [[ -d .venv/bin ]]; then
    export PATH="$PWD/.venv/bin:$PATH"
fi

study='' overrides=() options=() # key=value changes the study, for each step; other arguments are options of the sweep
while (($#)); do
    case $1 in
        --site)
            (($# > 1)) || fail "--site: expected a name" 2
            SITE=$2
            shift
            ;;
        --site=*) SITE=${1#*=} ;;
        -*) options+=("$1") ;;
        *=*) overrides+=("$1") ;;
        *) if [[ -z $study && ${#options[@]} -eq 0 ]]; then study=$1; else options+=("$1"); fi ;;
    esac
    shift
done
study=${study:-sweeps/phantom.yaml}
plan=("$study" "${overrides[@]}")
[[ -f $study ]] || fail "$study: no such study file; sweeps/ has some" 2

# The code of a job on SLURM is a copy of the repository's code beside the runs (hpc/launching/snapshot.py). `leukotree submit` makes
# it, or the first start of this job. When the job is queued again it uses the same copy.
shared=$PWD/results/runs/.sweeps/${SLURM_CLUSTER_NAME:-slurm}-${SLURM_JOB_ID:-}
copy=''
if [[ -n ${SLURM_JOB_ID:-} ]]; then copy=${LEUKOTREE_CODE:-}; fi
if [[ -n ${SLURM_RESTART_COUNT:-} && -s $shared/code ]]; then copy=$(<"$shared/code"); fi
if [[ -n $copy && ! -f $copy/slurm/node.sh ]]; then
    say "$copy: the code of this job was removed; it continues with the code of today"
    copy=''
fi

# Lets all later commands take that code. Without PYTHONSAFEPATH, `python -m` would look in the current folder first.
use_code() {
    export LEUKOTREE_CODE=$copy PYTHONSAFEPATH=1
    if [[ ${PYTHONPATH:-}: != "$copy:"* ]]; then export PYTHONPATH=$copy${PYTHONPATH:+:$PYTHONPATH}; fi
}
if [[ -n $copy ]]; then use_code; fi

# shellcheck source=slurm/container/enter.sh
source "${copy:-$PWD}/slurm/container/enter.sh"
enter_site "${SITE:-}"

# The path of a program: a site may put another Python first on PATH. In a container its name, which the container's PATH finds.
program() {
    if ((${#here[@]})); then
        echo "$1"
        return
    fi
    type -P "$1" || fail "$(hostname -s): command $1 not found: run \`make install\`, or put its venv on PATH" 2
}
leukotree=$(program leukotree) || exit 2
python=$(program python) || exit 2
site=(${SITE:+--site "$SITE"})

# Runs a command that submits jobs without the variables of this job: a job that inherits SLURM_* is bound to the CPUs of this job and
# takes its number of tasks. Variables that the user exports for sbatch stay: the site takes them over.
outside_job() {
    local name hide=()
    for name in $(compgen -e); do
        case $name in
            SLURM_CONF) ;;
            SLURM_* | SLURMD_* | SRUN_* | SBATCH_CPU_BIND* | SBATCH_MEM_BIND*) hide+=(-u "$name") ;;
        esac
    done
    env "${hide[@]}" "$@"
}

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "sweep.sh: searches $study, then runs its outer folds and reports ..."
    SITE=${SITE:-} "${here[@]}" "$leukotree" sweep "${plan[@]}" "${options[@]}"
    code=0
    "${here[@]}" "$leukotree" folds "${plan[@]}" --on local "${site[@]}" || code=$?
    ((code <= 1)) || exit "$code" # 1: some runs failed, the report names them
    "${here[@]}" "$leukotree" report "${plan[@]}" --table
    exit "$code"
fi

# Everything below is for a job on SLURM.

((${SLURM_PROCID:-0} == 0)) || fail "task $SLURM_PROCID: only one is needed; start it by sbatch, or by bash inside salloc or srun --pty" 2

echo "sweep.sh: job $SLURM_JOB_ID on $(hostname -s): looks at the study and the cluster, then searches $study ..."
if [[ -z $copy ]]; then
    copy=$("${here[@]}" "$python" -m hpc.launching.snapshot 2> >(tail -n 1 >&2)) || exit 2
    use_code
    # shellcheck source=slurm/container/enter.sh
    source "$copy/slurm/container/enter.sh"
    enter_site "${SITE:-}"
fi

# The IPv4 address of this node for the other nodes.
head_address() {
    local address='' interface=${LEUKOTREE_INTERFACE:-}
    if [[ -n $interface ]]; then
        address=$(ip -4 -o addr show dev "$interface" 2>/dev/null | awk '{split($4, part, "/"); print part[1]; exit}') || true
        [[ -n $address ]] || fail "$(hostname -s): no interface $interface with an IPv4 address; set \`interface\` in the site file" 2
    else
        address=$(getent ahostsv4 "$(hostname)" | awk '$1 !~ /^127\./ {print $1; exit}') || true
        [[ -n $address ]] || address=$(hostname -I 2>/dev/null | awk '{print $1}') || true
        [[ -n $address ]] || fail "$(hostname -s): no IPv4 address found; set \`interface\` in the site file" 2
    fi
    echo "$address"
}

# A port of this node that is free now.
free_port() {
    "${here[@]}" "$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])' 2>/dev/null \
        || fail "$(hostname -s): no free port" 1
}

# Makes the folder that the nodes of this search share, with notes that only this user may read. A job that is queued again uses the
# same folder.
make_shared() {
    local error
    error=$({ mkdir -p "$shared" && chmod 700 "$shared"; } 2>&1) || fail "$shared: cannot be made: ${error##*: }" 2
    # A worker that finds the head of an earlier start would wait for it without end, and count as a bad node.
    error=$({ rm -f "$shared/head" "$shared/driver" && : >"$shared/bad-nodes" && echo "$copy" >"$shared/code"; } 2>&1) \
        || fail "$shared: cannot be written: ${error##*: }" 2
}

# Asks the search to stop: it saves what is left to do, and ends with code 75.
near_the_end() {
    asked=yes
    [[ -n $step ]] || return 0
    for _ in {1..60}; do
        [[ -s $shared/driver ]] && break
        kill -0 "$step" 2>/dev/null || return 0
        sleep 1
    done
    # Only if it still is the search: process ids are used again, and a container may have other ones.
    if grep -qzFx "RAY_AUTH_TOKEN=$token" "/proc/$(<"$shared/driver")/environ" 2>/dev/null; then
        kill -TERM "$(<"$shared/driver")" || true
    fi
}
asked='' step=''
trap near_the_end USR1 # it may come before the search has begun

# Writes for the workers of an elastic search where its head is. They need the token to join.
write_head() {
    local name
    for name in SLURM_JOB_ID SITE address port token shared copy python ray; do
        printf '%s=%q\n' "${name/SLURM_JOB_ID/head_job}" "${!name:-}"
    done >"$shared/.head" && chmod 600 "$shared/.head" && mv "$shared/.head" "$shared/head"
}

# Runs the search on a Ray cluster over the nodes of this job. Ray runs the code of anyone who reaches its port, so it needs a token.
# The token is new for each start, and only the environment of the processes of this search has it.
sweep_on_slurm() {
    local address port token ray code=0 role=all nodes=$SLURM_JOB_NUM_NODES more=()
    address=$(head_address) || exit
    port=$(free_port) || exit
    ray=$(program ray) || exit
    token=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
    if [[ -n ${LEUKOTREE_ELASTIC:-} ]]; then
        role='head' nodes=1 more=(--elastic "$LEUKOTREE_ELASTIC" --workers-folder "$shared" "${site[@]}")
        write_head || fail "$shared: cannot be written" 1
    fi
    step=''
    trap near_the_end USR1
    [[ -z $asked ]] || return 75
    # --overlap: for use inside `srun --pty`, which holds the CPUs. --export: if a site exports nothing, a step has no PATH.
    SITE=${SITE:-} RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$token RAY_USAGE_STATS_ENABLED=0 \
        srun --export=ALL --overlap --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" \
        "${srun_args[@]}" "${inside[@]}" bash "$copy/slurm/node.sh" "$role" "$address" "$port" "$shared" "$ray" \
        "$leukotree" sweep "${plan[@]}" --ray-address "$address:$port" --ray-nodes "$nodes" "${more[@]}" "${options[@]}" &
    step=$!
    if [[ -n $asked ]]; then near_the_end; fi # the signal came while the step began
    wait "$step" || code=$?
    while ((code == 128 + $(kill -l USR1))); do # the signal has ended `wait`, and not the step
        code=0
        wait "$step" || code=$?
    done
    trap '' USR1 # what follows takes seconds
    return "$code"
}

# Whether SLURM counts this start of the job as running, and is not ending it.
is_running() {
    "${here[@]}" "$python" -m hpc.slurm.own_job "$SLURM_JOB_ID"
}

# Queues this job again, without the nodes in $1 (separated by commas); $2 is the reason. If SLURM refuses that, a new job is submitted.
requeue() {
    "${here[@]}" "$python" -m hpc.launching.requeue "${plan[@]}" || exit 75
    trap '' TERM # SLURM ends this script as soon as it has queued the job again
    for _ in 1 2 3; do # the controller may be busy
        if refused=$(scontrol requeue "$SLURM_JOB_ID" 2>&1); then
            say "$2, requeued; the search will continue"
            if [[ -n $1 ]]; then leave_out "$1"; fi
            exit 75
        fi
        [[ $refused == *[Tt]imed\ out* || $refused == *contact* ]] || break
        sleep 5
        is_running || exit 75 # SLURM has taken the request
    done
    [[ $(scontrol show job "$SLURM_JOB_ID") == *BatchFlag=1* ]] || fail "$2; run it again to continue" 75
    submit_again "$1" || fail "$2, and the requeue was refused (${refused##*: }); submit again to continue" 75
    say "$2, submitted again as SLURM does not requeue this job; the search will continue"
    exit 75
}

# Excludes nodes from this job after its requeue. It is pending from that moment on.
leave_out() {
    for _ in {1..16}; do
        if scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$1" 2>/dev/null; then return; fi
        sleep 0.5
    done
    say "the nodes $1 could not be left out"
}

# Submits a job like this one, to run after it, without the nodes in $1. It has the options of the site, and the partition, account,
# time limit and size of this job.
submit_again() {
    local limit asked
    limit=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format=%l)
    read -ra asked < <("${here[@]}" "$python" -m hpc.slurm.site ${SITE:+"$SITE"} --sbatch ${LEUKOTREE_ELASTIC:+--small})
    outside_job sbatch "${asked[@]}" --dependency="afterany:$SLURM_JOB_ID" --time="$limit" --nodes="$SLURM_JOB_NUM_NODES" \
        --partition="$SLURM_JOB_PARTITION" ${SLURM_JOB_ACCOUNT:+--account="$SLURM_JOB_ACCOUNT"} ${SLURM_JOB_QOS:+--qos="$SLURM_JOB_QOS"} \
        ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} ${1:+--exclude="$1"} \
        "${copy#"$PWD"/}/slurm/sweep.sh" "${plan[@]}" "${site[@]}" "${options[@]}" >/dev/null
}

# Some nodes could not begin. The job is queued again without them, if there are enough others. It ends instead where too many were
# bad, and at its first start where its own node was bad: then the site is wrong, and not the node.
leave_bad_nodes() {
    local bad others most
    bad=$(cut -d' ' -f1 "$shared/bad-nodes" | sort -u)
    if [[ -z ${SLURM_RESTART_COUNT:-} ]] && grep -qxF "${SLURMD_NODENAME:-$(hostname -s)}" <<<"$bad"; then exit "$REPORTED"; fi
    echo "$bad" >>"$shared/left-out"
    most=$("${here[@]}" "$python" -m hpc.launching.caps bad-nodes) || exit 1
    bad=$(sort -u "$shared/left-out" | paste -sd,)
    if (($(sort -u "$shared/left-out" | wc -l) >= most)); then
        fail "$bad cannot begin, see above; repair them, or leave them out: sbatch --exclude=$bad" "$REPORTED"
    fi
    others=$(sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --states=idle,alloc,mix,comp --format=%N | sort -u | grep -vcxF "$bad") || true
    ((others >= SLURM_JOB_NUM_NODES)) || fail "$bad cannot begin, see above, and there are not enough others; repair it" "$REPORTED"
    requeue "$bad" "$bad cannot begin and is left out"
}

search() {
    local code=0
    for _ in 1 2 3; do # another process may have taken the port meanwhile; the search continues from its records
        make_shared
        code=0
        sweep_on_slurm || code=$?
        ((code == 69)) || break
    done
    if [[ -s $shared/bad-nodes && $code != 0 ]]; then leave_bad_nodes; fi
    case $code in
        0) rm -rf -- "${shared:?}" ;;
        75) requeue '' "asked to stop" ;;
        143) # SIGTERM: a preemption that grants some time, or somebody ends the job
            if is_running; then requeue '' "asked to stop"; fi
            fail "the search of $study was ended; submit again to continue" "$code"
            ;;
        "$REPORTED") exit "$REPORTED" ;;
        *) fail "the search of $study ended with exit code $code" "$code" ;;
    esac
}

# Submits the folds as jobs of their own, and the report after them, even if some fail.
submit_folds_and_report() {
    local answer jobs small job report=("$leukotree" report "${plan[@]}")
    if ((${#here[@]})); then
        report=(bash "$copy/slurm/container/run.sh" "$SITE" "${report[@]}")
    else
        report=(env "PYTHONPATH=$PYTHONPATH" "${report[@]}") # a site may export nothing
    fi
    # Code 1: a run has failed already. The others are queued, and the report will name those that failed.
    answer=$(outside_job "${here[@]}" "$leukotree" folds "${plan[@]}" --on slurm --no-wait --json "${site[@]}") || (($? == 1)) || return
    [[ $answer == "{"* ]] || fail "folds of $study: not submitted, see above"
    # The id of a job of another cluster is 12_3@cluster. The follow-up job ("reducer") may queue more jobs; it then lets the report wait
    # for them.
    jobs=$("${here[@]}" "$python" -c 'import json, sys
answer = json.loads(sys.argv[1])
jobs = [*(job for job in answer["waiting"].values() if "@" not in job), answer.get("reducer")]
print(":".join(dict.fromkeys(job.split("_")[0] for job in jobs if job)))' "$answer")
    if [[ -z $jobs ]]; then
        "${here[@]}" "$leukotree" report "${plan[@]}"
        return
    fi
    read -ra small < <("${here[@]}" "$python" -m hpc.slurm.site ${SITE:+"$SITE"} --sbatch --small)
    job=$(outside_job sbatch --parsable "${small[@]}" --job-name=leukotree-report --output=slurm-%j.out \
        --dependency="afterany:$jobs" --wrap "${report[*]@Q}") \
        || fail "report job refused; when jobs $jobs are done: leukotree report ${plan[*]@Q}"
    job=${job%%;*}
    "${here[@]}" "$python" -m hpc.launching.study_jobs report "$job" "${plan[@]}" || true # for `status` and `cancel`
    echo "sweep.sh: folds submitted as ${jobs//:/, }; the report follows them as $job"
}

[[ -n ${SITE:-} ]] || say "no --site (or SITE): runs train on CPUs and get what the cluster gives by default"
setup=$("${here[@]}" "$python" -m hpc.slurm.site ${SITE:+"$SITE"} 2> >(tail -n 1 >&2)) || exit 2
srun_args=() # the site may set some
set +eu # the module files of a cluster may break under these
eval "$setup"
set -eu
use_code # a module may have set Python's path
# Errors that would otherwise show only after the search.
outside_job "${here[@]}" "$leukotree" doctor "${plan[@]}" "${site[@]}" --queue || exit 2
search
submit_folds_and_report
