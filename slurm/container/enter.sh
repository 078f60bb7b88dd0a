# Runs the commands of a shell in a container. Bash sources this file; then one of
#
#   enter RUNTIME IMAGE       apptainer, pyxis or charliecloud ('': chosen by the image's ending); without an image no container
#   enter_site SITE           the container of a site: a name in slurm/site/, or a path
#
# sets two arrays, which are empty without a container.
#
#   srun [option ...] "${inside[@]}" command ...       a step of srun
#   "${here[@]}" command ...                           anything else
#
# These folders are mounted, each at its own path: the repository, the current folder and the folders that its links name, $HOME,
# temporary folders, those of weights, and those in LEUKOTREE_MOUNTS (a:b:c). The command has the environment of the shell, but the image's PATH.
# SLURM's commands go through relay.sh.
# shellcheck shell=bash disable=SC2034 # the script that sources this uses the arrays

container_home=$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)

refuse_container() {
    echo "container: $1" >&2
    exit 2
}

# Prints the runtime for the ending of an image.
container_runtime() {
    case $1 in
        *.sif) echo apptainer ;;
        *.sqsh | *'#'*) echo pyxis ;;
        *) echo charliecloud ;;
    esac
}

# Adds folders to `mounts`, except those that do not exist, or lie in one that is already in it.
mount_folders() {
    local folder known
    for folder; do
        [[ -d $folder && $folder == /?* ]] || continue
        [[ $folder != *[:,]* ]] || refuse_container "$folder: no container takes a folder with : or , in its name"
        for known in "${mounts[@]}"; do
            if [[ $folder/ == "$known"/* ]]; then continue 2; fi
        done
        mounts+=("$folder")
    done
}

# Sets `mounts`, the folders that the container sees.
find_mounts() {
    local more link code=${container_home%/slurm/container} git=''
    mounts=()
    IFS=: read -ra more <<<"${LEUKOTREE_MOUNTS:-}"
    if [[ -f $code/.git ]]; then git=$(sed -n 's|^gitdir: \(/.*\)/worktrees/.*|\1|p' "$code/.git"); fi # the repository of a worktree: runs note the commit
    mount_folders "${HOME:-}" "$PWD" "$(pwd -P)" "$code" "$git" /tmp "${LEUKOTREE_SCRATCH:-}" "${LEUKOTREE_WEIGHTS:-}" "${HF_HOME:-}" "${HF_HUB_CACHE:-}" "${TMPDIR:-}" "${more[@]}"
    for link in *; do
        if [[ -L $link ]]; then mount_folders "$(readlink -f "$link")"; fi
    done
}

# Each of these sets the words before a command, for one runtime. `nv` is set if the host has a driver of NVIDIA.
apptainer_words() {
    local nv=() IFS=,
    if command -v nvidia-smi >/dev/null; then nv=(--nv); fi
    inside=(apptainer exec "${nv[@]}" --bind "${mounts[*]}" "$1")
    here=("${inside[@]}")
}

pyxis_words() {
    local folder pairs=''
    for folder in "${mounts[@]}"; do pairs+=${pairs:+,}$folder:$folder; done
    inside=(--container-image="$1" --container-mounts="$pairs" --container-workdir="$PWD" --no-container-remap-root)
    here=(srun --jobid="$SLURM_JOB_ID" --nodelist="${SLURMD_NODENAME:-}" --nodes=1 --ntasks=1 --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}"
        --overlap --export=ALL "${inside[@]}")
}

charliecloud_words() {
    local folder binds=()
    for folder in "${mounts[@]}"; do
        mkdir -p "$1$folder" 2>/dev/null || refuse_container "$1: has no folder $folder to mount the host's on; make it there"
        binds+=(--bind "$folder")
    done
    export USER=${USER:-$(id -un)} # ch-run wants it
    inside=(ch-run --set-env --unset-env='LD_*' "${binds[@]}" --cd "$PWD" "$1" --)
    here=("${inside[@]}")
}

# Starts a relay to SLURM's commands, which runs as long as this shell. It is no child of the shell: `wait` does not wait for it.
start_relay() {
    if [[ ${relay_of:-} == "$$" ]] || ! command -v sbatch >/dev/null; then return 0; fi
    LEUKOTREE_RELAY=$(mktemp -d /tmp/lt-relay.XXXXXX) || refuse_container "cannot make a folder in /tmp"
    mkfifo "$LEUKOTREE_RELAY/requests" || refuse_container "no named pipe in /tmp"
    export LEUKOTREE_RELAY
    (bash "$container_home/relay.sh" "$LEUKOTREE_RELAY" "$$" </dev/null >/dev/null 2>&1 &)
    [[ -n $(trap -p EXIT) ]] || trap 'rm -rf -- "$LEUKOTREE_RELAY"' EXIT
    relay_of=$$
}

enter() {
    local runtime=$1 image=$2 mounts
    inside=() here=()
    [[ -n $image ]] || return 0
    runtime=${runtime:-$(container_runtime "$image")}
    [[ $runtime == pyxis || $image == *://* || -e $image ]] || refuse_container "$image: no such image (site key \`container\`)"
    [[ $runtime != pyxis || -n ${SLURM_JOB_ID:-} ]] || refuse_container "pyxis needs a job: put \`srun\` in front"
    start_relay
    find_mounts
    "${runtime}_words" "$image"
    inside+=(/bin/sh "$container_home/guest.sh")
    here+=(/bin/sh "$container_home/guest.sh")
}

# Prints the value of a key in a site file. It reads only lines of YAML like `key: value   # remark`, also with quotes.
site_value() {
    sed -nE "s/^$2:[[:space:]]+([\"']?)([^\"'[:space:]]+)\1[[:space:]]*([[:space:]]#.*)?\$/\2/p" "$1" | grep -vxE 'null|~' | tail -n 1
}

enter_site() {
    local file=$1 image runtime
    if [[ $file != */* && $file != *.yaml && $file != *.yml ]]; then file=$container_home/../site/${file:-default}.yaml; fi
    [[ -f $file ]] || refuse_container "site $1: no such file $file"
    image=$(site_value "$file" container) || image=''
    runtime=$(site_value "$file" container_runtime) || runtime=''
    [[ $image =~ ^[][A-Za-z0-9._/+:#@\$\{\}-]*$ ]] || refuse_container "$file: container: not a path or name: $image"
    eval "image=\"$image\"" # it can contain variables, and nothing else
    enter "$runtime" "$image"
}
