"""A job's batch script: its lines around those of submitit, and the call of sbatch."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from eakd_det.sweep import processes

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


@contextmanager
def calling_sbatch() -> Iterator[None]:
    """Shield sbatch, which is called in the with-block, from its surroundings.

    It would pass on the variables of a job in which this process runs, and Ctrl-C or the end of the
    terminal could end it before it prints the ids of the jobs that it has submitted.
    """
    names = [x for x in os.environ if x.startswith(("SLURM_", "SRUN_")) and x != "SLURM_CONF"]
    hidden = {name: os.environ.pop(name) for name in names}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, processes.ENDS)
    try:
        yield
    finally:
        os.environ.update(hidden)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
