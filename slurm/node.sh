#!/usr/bin/env bash
# The program of each node of a search: a Ray that belongs to this start of the job and, on the head, the search itself.
#
#   bash slurm/node.sh ROLE ADDRESS PORT SHARED RAY [COMMAND...]
#
#   ROLE       head; worker, which is a job of its own; or `all` for a step over several nodes. Its first node is the head, and its
#              other nodes (members) end with the head
#   ADDRESS    of Ray's head, with PORT
#   SHARED     a folder of this search that all its nodes see. The head writes the process id of COMMAND to `driver` there. A node
#              that cannot begin adds a line to `bad-nodes`: its name, then the reason
#   RAY        the program `ray`
#   COMMAND    the search; the head runs it once its Ray is up
#
# Exit code: that of COMMAND; 143 after a request to stop; 70 if the node cannot begin; 69 if its Ray did not start, or ended without
# a request. For 70 and 69 a line has been printed. The members of a step always end with 0: the code of the head counts.
#
# SIGTERM, SIGUSR1: stop, but let trials save first. SIGUSR2, which the head sends to the members: stop now.
#
# This program talks only to the Ray that it started. It ends only processes that have the marker of this start in their environment,
# which Ray's processes inherit. Ray makes its folder writable for everybody. So the folder lies in a private one, with a short path
# (a socket's path has at most 107 bytes). Decoded images lie there, too.
# shellcheck disable=SC2317 # functions that traps call
set -uo pipefail # no -e: each step reports its own failure

role=$1 head=$2 port=$3 shared=$4 ray=$5
shift 5
if [[ $role == all ]]; then
    if ((SLURM_NODEID == 0)); then role='head'; else role='member'; fi
fi
host=${SLURMD_NODENAME:-$(hostname -s)} # the name that SLURM uses: `--exclude` takes no other one
scratch=${LEUKOTREE_SCRATCH:-/tmp}
private='' marker='' ray_pid='' driver=''
ROOM=$((64 * 1024)) # bytes that the first files need
SAVE=20             # seconds that trials have to save; SLURM kills the rest after half a minute

say() {
    echo "sweep.sh: $host: $1" >&2
}

# Ids of the processes of this start. Without a marker there are none.
own_processes() {
    [[ $marker =~ ^[0-9a-f-]{36}$ ]] || return 0
    grep -slzFx "LEUKOTREE_NODE=$marker" /proc/[0-9]*/environ | cut -d/ -f3
}

# Asks the process group of $1 to end, and kills it after $2 seconds.
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

# Ends the remaining processes of this start, and removes its folder. Ray's workers end only when they notice that their raylet has
# ended. Until then they may make the folder again: their logs are open in it.
clean_up() {
    local left
    for _ in {1..20}; do
        mapfile -t left < <(own_processes)
        if ((${#left[@]})); then kill -KILL "${left[@]}" 2>/dev/null; fi
        if [[ $private == /*/lt.* ]]; then rm -rf -- "$private" 2>/dev/null; fi
        if ((${#left[@]} == 0)) && [[ -z $private || ! -e $private ]]; then break; fi
        sleep 0.5
    done
}

# Sends a signal to this program on all nodes of the step, also to itself.
signal_all() {
    scancel --signal="$1" "$SLURM_JOB_ID.$SLURM_STEP_ID" 2>/dev/null
}

# Ends everything on this node, with exit code $1. The head also ends the members.
leave() {
    trap '' TERM USR1 USR2
    if [[ $role == head && ${SLURM_STEP_NUM_TASKS:-1} -gt 1 ]]; then signal_all USR2; fi
    end_group "$driver" 0
    end_group "$ray_pid" 3
    clean_up
    if [[ $role == member ]]; then exit 0; fi
    exit "$1"
}

# Lets trials save before this node ends. The head asks the search, which asks all trials; another node asks its own trials.
asked_to_stop() {
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

# Whether there is something to wait for: the search on the head, or else a trial on this node.
at_work() {
    if [[ $role == head ]]; then
        [[ -n $driver ]] && kill -0 "$driver" 2>/dev/null
    else
        compgen -G "$private/trials/*" >/dev/null
    fi
}

# Whether the search of this worker has ended, or has started again elsewhere. Then the worker must not join it.
search_has_ended() {
    [[ $role == worker ]] && ! grep -qsxF "port=$port" "$shared/head"
}

# Ends this node because it cannot begin. The reason $1 goes to the log and to the job, in one line.
cannot_begin() {
    if search_has_ended; then leave 0; fi # no fault of this node
    say "$1"
    echo "$host $1" >>"$shared/bad-nodes"
    if [[ $role == member ]]; then signal_all USR1; fi # nobody has to wait for this node
    leave 70
}

# Makes the private folder, with a file that names its job. If this job cannot remove it, a later job of this user on this node does.
make_private() {
    [[ $scratch == /* ]] || cannot_begin "$scratch (site key \`scratch\`) is no absolute path"
    "$(dirname "$(type -P "$ray")")/python" -m hpc.slurm.scratch "$scratch" 2>/dev/null # remove what killed jobs of this user left on this node
    local reason job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    reason=$(mktemp -d "$scratch/lt.XXXXXX" 2>&1) || cannot_begin "cannot make a folder in $scratch (site key \`scratch\`): ${reason##*: }"
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
        --include-log-monitor=false              # nobody asks for the output of Ray's processes: trials have logs of their own
        --min-worker-port=0 --max-worker-port=0) # any free port; by default all Rays of a node take the same ones
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

# Prints the last line of Ray's log that is not empty. The whole log is copied to the shared folder.
ray_message() {
    cp "$private/log" "$shared/ray-$host.log" 2>/dev/null
    grep -v '^ *$' "$private/log" | tail -n 1 | cut -c1-300
}

# In a container only the first node has SLURM's commands, so the head itself looks for members that cannot begin.
watch_members() {
    if [[ $role != head || -z ${LEUKOTREE_RELAY:-} || ${SLURM_STEP_NUM_TASKS:-1} -eq 1 ]]; then return; fi
    # shellcheck disable=SC2016 # expanded there
    LEUKOTREE_NODE=$marker bash -c 'until [[ -s $1/bad-nodes ]]; do sleep 2; done; kill -USR1 "$2"' watch "$shared" "$$" &
}

trap asked_to_stop TERM USR1
if [[ $role == head ]]; then trap asked_to_stop USR2; else trap 'leave 0' USR2; fi
[[ -x $(type -P "$ray") ]] || cannot_begin "no program $ray; make the same environment on each node"
make_private
watch_members
cpus=$SLURM_CPUS_ON_NODE
if [[ -n ${LEUKOTREE_ELASTIC:-} && $role == head ]]; then cpus=0; fi # its trials run on workers
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$private/triton} TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$private/inductor}
export LEUKOTREE_CACHE=${LEUKOTREE_CACHE:-$private/cache} LEUKOTREE_NODE_FOLDER=$private RAY_TMPDIR=$private PYTHONUNBUFFERED=1
export RAY_prestart_worker_first_driver=0 # by default a process for each CPU of the node, which no trial would use
if ! start_ray; then
    if [[ $role == head ]]; then
        say "Ray did not start: $(ray_message); its log: $shared/ray-$host.log"
        leave 69 # another process may have taken the port meanwhile
    fi
    cannot_begin "Ray did not start: $(ray_message)"
fi
if [[ $role == head ]]; then
    set -m
    LEUKOTREE_NODE=$marker "$@" </dev/null &
    driver=$!
    set +m
    echo "$driver" >"$shared/driver"
fi
# The commands run in the background: bash handles a signal only between commands or in `wait`.
wait -n ${driver:+"$driver"} "$ray_pid"
code=$?
if [[ -n $driver ]] && kill -0 "$ray_pid" 2>/dev/null; then leave "$code"; fi
sleep 1
if [[ -n $driver ]] && ! kill -0 "$driver" 2>/dev/null; then leave 1; fi # somebody ended Ray and the search
say "Ray ended without a request: $(ray_message); its log: $shared/ray-$host.log"
leave 69
