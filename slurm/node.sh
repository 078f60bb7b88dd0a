#!/usr/bin/env bash
# What each node of a search runs: a Ray that belongs to this start of the job and, on the head, the search itself.
#
#   bash slurm/node.sh ROLE ADDRESS PORT SHARED RAY [COMMAND...]
#
#   ROLE       head; worker, a job of its own; or `all` for a step over several nodes, whose first is the head, and whose others end
#              with it
#   ADDRESS    of Ray's head, with PORT
#   SHARED     a folder of this search that all its nodes see; here the head leaves the process id of COMMAND in `driver`, and a
#              node that cannot begin a line in `bad-nodes`: its name, then what is wrong with it
#   RAY        the program `ray`
#   COMMAND    the search; the head runs it once its Ray is up
#
# Exit code: that of COMMAND; 143 if it was told to leave; 70 where the node cannot begin; 69 where its Ray did not start, or has
# ended without being asked to. The last two have been said in a line. A step's others always end with 0: the head's counts.
#
# SIGTERM, SIGUSR1: leave, but let trials save first. SIGUSR2, which the head sends to the others: leave now.
#
# Nothing here speaks to a Ray that it did not start, and nothing is ended but what carries the marker of this start in its
# environment, which Ray's processes inherit. Ray makes its folder writable for everybody: it lies in a private one, with a short
# path (a socket's path has at most 107 bytes). Decoded images lie there too.
# shellcheck disable=SC2317 # functions that traps call
set -uo pipefail # no -e: each step says by itself what has failed

role=$1 head=$2 port=$3 shared=$4 ray=$5
shift 5
if [[ $role == all ]]; then
    if ((SLURM_NODEID == 0)); then role='head'; else role='member'; fi
fi
host=${SLURMD_NODENAME:-$(hostname -s)} # as SLURM calls it: `--exclude` takes no other name
scratch=${LEUKOTREE_SCRATCH:-/tmp}
private='' marker='' ray_pid='' driver=''
ROOM=$((64 * 1024)) # bytes: what the first files take
SAVE=20             # seconds that trials have to save; SLURM kills what is left after half a minute

say() {
    echo "sweep.sh: $host: $1" >&2
}

# Ids of the living processes of this start. Without a marker, none.
ours() {
    [[ $marker =~ ^[0-9a-f-]{36}$ ]] || return 0
    grep -slzFx "LEUKOTREE_NODE=$marker" /proc/[0-9]*/environ | cut -d/ -f3
}

# Asks the process group of $1 to end, and makes it after $2 seconds.
end_group() {
    local half
    [[ $1 =~ ^[0-9]+$ ]] || return 0
    for ((half = 0; half < 2 * $2; half++)); do
        kill -TERM -- "-$1" 2>/dev/null || return 0
        sleep 0.5
    done
    kill -KILL -- "-$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

# Ends what is left of this start, and removes its folder. Ray's workers end only when they miss their raylet, and may make the
# folder again until then: they have their logs open in it.
sweep_up() {
    local left
    for _ in {1..20}; do
        mapfile -t left < <(ours)
        if ((${#left[@]})); then kill -KILL "${left[@]}" 2>/dev/null; fi
        if [[ $private == /*/lt.* ]]; then rm -rf -- "$private" 2>/dev/null; fi
        if ((${#left[@]} == 0)) && [[ -z $private || ! -e $private ]]; then break; fi
        sleep 0.5
    done
}

# Sends a signal to this program on all nodes of the step, also to itself.
tell_all() {
    scancel --signal="$1" "$SLURM_JOB_ID.$SLURM_STEP_ID" 2>/dev/null
}

# Ends all of this node, with exit code $1. The head takes the others along.
leave() {
    trap '' TERM USR1 USR2
    if [[ $role == head && ${SLURM_STEP_NUM_TASKS:-1} -gt 1 ]]; then tell_all USR2; fi
    end_group "$driver" 0
    end_group "$ray_pid" 3
    sweep_up
    if [[ $role == member ]]; then exit 0; fi
    exit "$1"
}

# Lets trials save before this node leaves: a head asks the search, which asks them all; another node asks its own.
told_to_leave() {
    trap '' TERM USR1
    local second
    if [[ -n $driver ]]; then kill -TERM "$driver" 2>/dev/null; fi
    if [[ -n $private ]]; then : >"$private/leave"; fi
    for ((second = 0; second < SAVE; second++)); do
        at_work || break
        sleep 1
    done
    leave 143
}

# Whether there is something to wait for: the search, or a trial on this node.
at_work() {
    if [[ $role == head ]]; then
        [[ -n $driver ]] && kill -0 "$driver" 2>/dev/null
    else
        compgen -G "$private/trials/*" >/dev/null
    fi
}

# Whether the search of this worker has ended, or begun anew elsewhere, and is not to be joined any more.
search_has_gone() {
    [[ $role == worker ]] && ! grep -qsxF "port=$port" "$shared/head"
}

# This node cannot begin, because of $1: in one line, to the reader and to the job.
cannot_begin() {
    if search_has_gone; then leave 0; fi # that is not this node's fault
    say "$1"
    echo "$host $1" >>"$shared/bad-nodes"
    if [[ $role == member ]]; then tell_all USR1; fi # nobody waits for a node that will not come
    leave 70
}

# The private folder, with a file that says whose it is: a later job of ours on this node removes it if we cannot.
make_private() {
    [[ $scratch == /* ]] || cannot_begin "$scratch (site key \`scratch\`) is no absolute path"
    "$(dirname "$(type -P "$ray")")/python" -m hpc.slurm.scratch "$scratch" 2>/dev/null # what killed jobs of ours left on this node
    local reason job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    reason=$(mktemp -d "$scratch/lt.XXXXXX" 2>&1) || cannot_begin "no folder of our own in $scratch (site key \`scratch\`): ${reason##*: }"
    private=$reason
    reason=$({ printf 'cluster=%s\njob=%s\nrestart=%s\nhost=%s\nuser=%s\n' "${SLURM_CLUSTER_NAME:-}" "$job" "${SLURM_RESTART_COUNT:-0}" \
        "$(hostname)" "$(id -un)" >"$private/.leukotree-job" \
        && head -c "$ROOM" /dev/zero >"$private/log" && mkdir "$private/trials"; } 2>&1) \
        || cannot_begin "no room in $scratch (site key \`scratch\`): ${reason##*: }"
    ((${#private} <= 39)) || cannot_begin "$scratch (site key \`scratch\`) is too long for Ray's sockets: use a path of at most 29 characters"
    marker=$(<"/proc/sys/kernel/random/uuid")
}

# Waits until Ray's head takes connections.
reaches_head() {
    for _ in {1..240}; do
        (: </dev/tcp/"$head/$port") 2>/dev/null && return
        sleep 0.5
    done
    return 1
}

# Starts Ray and waits until it is up.
start_ray() {
    local options=(--block --num-cpus="$cpus" --object-store-memory=536870912 --temp-dir="$private/ray"
        --min-worker-port=0 --max-worker-port=0) # any free port; by default all Rays of a node would take the same
    if [[ $role == head ]]; then
        options+=(--head --node-ip-address="$head" --port="$port" --include-dashboard=false)
    else
        options+=(--address="$head:$port")
        reaches_head || cannot_begin "does not reach the search at $head:$port (site key \`interface\`)"
    fi
    set -m # a process group of its own
    LEUKOTREE_NODE=$marker "$ray" start "${options[@]}" >"$private/log" 2>&1 </dev/null &
    ray_pid=$!
    set +m
    for _ in {1..240}; do
        grep -q 'Ray runtime started' "$private/log" && return
        kill -0 "$ray_pid" 2>/dev/null || break
        sleep 0.5
    done
    return 1
}

# The last line of Ray's log that says something. The whole log is kept beside the job's notes.
ray_said() {
    cp "$private/log" "$shared/ray-$host.log" 2>/dev/null
    grep -v '^ *$' "$private/log" | tail -n 1 | cut -c1-300
}

# In a container only the first node has SLURM's commands, so it looks itself for members that cannot begin.
watch_members() {
    if [[ $role != head || -z ${LEUKOTREE_RELAY:-} || ${SLURM_STEP_NUM_TASKS:-1} -eq 1 ]]; then return; fi
    # shellcheck disable=SC2016 # expanded there
    LEUKOTREE_NODE=$marker bash -c 'until [[ -s $1/bad-nodes ]]; do sleep 2; done; kill -USR1 "$2"' watch "$shared" "$$" &
}

trap told_to_leave TERM USR1
if [[ $role == head ]]; then trap told_to_leave USR2; else trap 'leave 0' USR2; fi
[[ -x $(type -P "$ray") ]] || cannot_begin "no program $ray; make the same environment on each node"
make_private
watch_members
cpus=$SLURM_CPUS_ON_NODE
if [[ -n ${LEUKOTREE_ELASTIC:-} && $role == head ]]; then cpus=0; fi # its trials go to workers
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$private/triton} TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$private/inductor}
export LEUKOTREE_CACHE=${LEUKOTREE_CACHE:-$private/cache} LEUKOTREE_NODE_FOLDER=$private RAY_TMPDIR=$private PYTHONUNBUFFERED=1
if ! start_ray; then
    if [[ $role == head ]]; then
        say "Ray did not start: $(ray_said); its log: $shared/ray-$host.log"
        leave 69 # another process may have taken the port in between
    fi
    cannot_begin "Ray did not start: $(ray_said)"
fi
if [[ $role == head ]]; then
    set -m
    LEUKOTREE_NODE=$marker "$@" </dev/null &
    driver=$!
    set +m
    echo "$driver" >"$shared/driver"
fi
# In the background: bash delivers a signal only between commands or in `wait`.
wait -n ${driver:+"$driver"} "$ray_pid"
code=$?
if [[ -n $driver ]] && kill -0 "$ray_pid" 2>/dev/null; then leave "$code"; fi
sleep 1
if [[ -n $driver ]] && ! kill -0 "$driver" 2>/dev/null; then leave 1; fi # somebody ended both
say "Ray ended without being asked to: $(ray_said); its log: $shared/ray-$host.log"
leave 69
