#!/usr/bin/env bash
# Runs SLURM's commands on the host for programs in a container, which has none of them. They run without the variables of the job.
#
#   bash slurm/container/relay.sh FOLDER PID      runs until process PID has ended, then removes FOLDER
#
# FOLDER is private and has a named pipe, `requests`. bin/ask makes a folder in it with the words and the input of a command, and
# writes the folder's name to the pipe. No shell reads the words. Only commands that have a link in bin/ are run.
set -u

folder=$1 pid=$2
commands=$(dirname "${BASH_SOURCE[0]}")/bin
trap '' HUP INT TERM USR1 USR2 # these signals are for the programs
for name in $(compgen -e); do
    case $name in
        SLURM_CONF) ;;
        SLURM_* | SLURMD_* | SBATCH_* | SRUN_* | LEUKOTREE_RELAY) unset "$name" ;;
    esac
done

# Runs the command of a request in its working folder, with its variables.
run_request() {
    local words variables
    mapfile -d '' -t words <"$1/words"
    mapfile -d '' -t variables <"$1/variables"
    [[ -L $commands/${words[1]} ]] || { echo "relay.sh: no command ${words[1]}" >&2; return 127; }
    cd "${words[0]}" || return 127
    env "${variables[@]}" "${words[@]:1}"
}

answer() {
    (run_request "$1") <"$1/in" >"$1/out" 2>"$1/err"
    echo $? 1<>"$1/done" # opened for reading, too, so it waits for no reader
}

exec 3<>"$folder/requests"
while kill -0 "$pid" 2>/dev/null; do
    if read -r -t 1 -u 3 name && [[ $name =~ ^[A-Za-z0-9]+$ ]]; then answer "$folder/$name" & fi
done
rm -rf -- "$folder"
