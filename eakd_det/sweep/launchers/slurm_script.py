"""Lines of a job's batch script around those of submitit."""

from .slurm_options import SIGNAL

RESTARTS = 10  # of a job, after which one whose worker was killed is not requeued any more

BEFORE = [
    f"export SUBMITIT_PREEMPT_SIGNAL={SIGNAL}",
    'export LOKY_MAX_CPU_COUNT="$SLURM_CPUS_ON_NODE"',
    # srun of SLURM 22.05 and later does not take the number of CPUs from sbatch.
    '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
]
AFTER = [  # a worker that was killed, or signaled while it started, cannot requeue its job
    "code=$?",
    f'if [ "$code" -gt 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then',
    # In an array, SLURM_JOB_ID may be the id of the whole array.
    '  job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
    '  state=$(squeue --noheader --jobs "$job" --format=%T)',
    '  [ "$state" != RUNNING ] || scontrol requeue "$job"',
    "fi",
    'exit "$code"',
]
