# shellcheck shell=bash disable=SC2154,SC2034 # names that are set before it, or read after it, in the same script
# End of the batch script of a job, which ended with the exit code `code`. The function `run_python` is defined. `most_losses` is how
# often a job that lost a rank is queued again; that happens also if no command waits for the job.

# Runs a command of SLURM, again if it fails: the controller may be busy, and without an answer the job would be lost.
ask() {
    local pause message
    for pause in 2 10 30 ""; do
        { message=$("$@" 2>&1 >&3 3>&-); } 3>&1 && return
        [[ -n $pause && $message != *disabled* ]] || break # a site may allow no requeue
        sleep "$pause"
    done
    echo "$message" >&2
    return 1
}
id=${leukotree_job##*/}
logs=("$leukotree_job"_*_log.err)

# Whether SLURM counts this start of the job as running: not if SLURM ends the job itself, above all after scancel, and not if SLURM has
# started the job again while this script waited for a lost node. The shell asks, as `hpc.slurm.own_job` does: after the loss of a node
# Python may no longer start here, and the job would be lost.
is_running() {
    unset "${!SQUEUE_@}" # variables of the user, which would hide the job
    [[ $(ask squeue --all --noheader --jobs "$id" --Format=state,restartcnt | xargs) == "RUNNING ${SLURM_RESTART_COUNT:-0}" ]]
}

queue_again() {
    is_running || return
    if ask scontrol requeue "$id"; then wait; else echo "$code" >"${leukotree_job}_refused"; fi
}

# After a lost rank. Losses are counted in a file: SLURM's own count includes time limits and preemptions.
after_a_loss() {
    local lost=$(($(cat "${leukotree_job}_lost" 2>/dev/null || echo 0) + 1))
    [[ $lost -le $most_losses ]] && echo "$lost" >"${leukotree_job}_lost" && queue_again
}

# Nodes on which Python, or a file that it needs, is missing. The job would fail there again, and at once.
bad=$(sed -n 's/^srun: error: \([^:]*\): tasks\{0,1\} .*: Exited with exit code \(2\|126\|127\)$/\1/p' "${logs[@]}" 2>/dev/null | sort -u | paste -sd,)
killed=$((code == 137 && $(out_of_memory) > leukotree_before))
if ((code)) && { ((killed)) || grep -qs 'oom_kill event' "${logs[@]}"; }; then
    run_python -m hpc.launching.failures "$jobs" "$id" oom "the kernel ended a rank for lack of memory"
elif [[ -n $bad ]]; then
    echo "$bad" >"${leukotree_job}_bad"
else
    case $code in # 75: a rank lost another one; 137: a rank was killed; 134: NCCL ended it
        75 | 134 | 137) after_a_loss ;;
    esac
fi
exit "$code"
