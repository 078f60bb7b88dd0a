# shellcheck shell=bash disable=SC2154,SC2034 # names that come before it, or are read after it, in the same script
# End of the batch script of a job, which ended with the exit code `code`; the function `run_python`, and `most_losses`, how often a job
# that lost a rank is queued again, are known. It does so also where nobody waits for the job.
ask() { # the controller may be busy, least of all now should that lose the job
    local pause said
    for pause in 2 10 30 ""; do
        { said=$("$@" 2>&1 >&3 3>&-); } 3>&1 && return
        [[ -n $pause && $said != *disabled* ]] || break # a site may allow no requeue
        sleep "$pause"
    done
    echo "$said" >&2
    return 1
}
id=${leukotree_job##*/}
logs=("$leukotree_job"_*_log.err)
# Not where SLURM ends the job itself, least of all by scancel, nor where it has begun the job anew while this script waited for a
# lost node.
queue_again() {
    run_python -m hpc.slurm.own_job "$id" || return
    if ask scontrol requeue "$id"; then wait; else echo "$code" >"${leukotree_job}_refused"; fi
}
again() { # losses are counted in a file: SLURM's own count has the time limits and preemptions, too
    local lost=$(($(cat "${leukotree_job}_lost" 2>/dev/null || echo 0) + 1))
    [[ $lost -le $most_losses ]] && echo "$lost" >"${leukotree_job}_lost" && queue_again
}
# A node on which Python, or a file that it needs, is missing: it would fail again, and at once.
bad=$(sed -n 's/^srun: error: \([^:]*\): tasks\{0,1\} .*: Exited with exit code \(2\|126\|127\)$/\1/p' "${logs[@]}" 2>/dev/null | sort -u | paste -sd,)
killed=$((code == 137 && $(out_of_memory) > leukotree_before))
if ((code)) && { ((killed)) || grep -qs 'oom_kill event' "${logs[@]}"; }; then
    run_python -m hpc.launching.failures "$jobs" "$id" oom "the kernel ended a rank for lack of memory"
elif [[ -n $bad ]]; then
    echo "$bad" >"${leukotree_job}_bad"
else
    case $code in # 75: a rank lost another; 137: a rank was killed; 134: NCCL ended it
        75 | 134 | 137) again ;;
    esac
fi
exit "$code"
