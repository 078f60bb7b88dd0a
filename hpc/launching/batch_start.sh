# shellcheck shell=bash disable=SC2154,SC2034 # names that are set before it, or read after it, in the same script
# Start of the batch script of a job. `jobs` (the folder of the logs) and `token` (the name of this submission) are set.
# An element of an array is named by the array: SLURM gives one element the number of the whole array.
leukotree_job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
leukotree_job=$jobs/${leukotree_job:-$SLURM_JOB_ID}
# The job fetches its work itself: the process that submitted it may have been killed. A job that was queued again has its work.
mv "$jobs/${token}_${SLURM_ARRAY_TASK_ID:-0}.pkl" "${leukotree_job}_submitted.pkl" 2>/dev/null
echo "$SLURM_JOB_NODELIST" >"${leukotree_job}_nodes"
# Prints how often the kernel has ended a process of this job, or of its container, for lack of memory.
out_of_memory() {
    local group
    sed -n 's/^0:://p; s/^[0-9]*:memory:/memory/p' /proc/self/cgroup 2>/dev/null | while read -r group; do # cgroup v2, v1
        group=/sys/fs/cgroup/${group%%/step_*}
        [[ -d $group ]] || group=/sys/fs/cgroup/memory # a container sees its own group as the root
        cat "$group"/memory.{events,oom_control} 2>/dev/null
    done | awk '$1 == "oom_kill" { count += $2 } END { print count + 0 }'
}
leukotree_before=$(out_of_memory)
