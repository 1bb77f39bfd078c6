"""Training of a grid by a launcher: resumable, with the teachers first."""

import logging

from .grid import refuse_outdated
from .jobs import Jobs
from .launchers import Launcher
from .progress import progress_line
from .run import Run
from .status import note_grid
from .tracker import Tracker

logger = logging.getLogger(__name__)


def run_sweep(
    runs: list[Run],
    script: str,
    output_dir: str,
    launcher: Launcher,
    *,
    gpus: int = 1,
    overwrite: bool = False,
    detach: bool = False,
) -> dict[str, str]:
    """Train what is not finished yet: first the teachers, then the runs that need them.

    KeyboardInterrupt cancels what has been submitted, unless `detach` is set; the same call goes on
    from the checkpoints. So does another exception, unless the jobs outlive this process.

    Args:
        runs: of `eakd_det.sweep.grid.plan`.
        script: path of the script of their kind.
        output_dir: holds the output of the teachers' training, teachers/*.txt.
        launcher: trains them.
        gpus: processes of a training.
        overwrite: train runs of another origin anew.
        detach: return when all is submitted.

    Returns:
        Title of a failed run -> the reason, with the last lines of its output.

    Raises:
        UserError: there are such runs, and they are not to be overwritten.
    """
    if not overwrite:
        refuse_outdated({str(run.folder): run.outdated() for run in runs})
    done = [run for run in runs if _is_done(run)]
    todo = [run for run in runs if run not in done]
    jobs = Jobs(script, output_dir, gpus, overwrite)
    teachers = jobs.teachers(todo)
    note_grid(output_dir, runs, teachers)
    with progress_line(len(runs)) as line:
        tracker = Tracker(launcher, line, {run.title for run in runs}, len(done))
        try:
            tracker.submit(teachers)
            if not detach and any(jobs.needs(run) for run in done):
                tracker.wait()  # their teachers were gone: trained anew, they may be others
                if not overwrite:
                    refuse_outdated({str(run.folder): run.outdated() for run in runs})
                todo = [run for run in runs if run.result() is None]
                tracker.done = len(runs) - len(todo)
            tracker.submit([jobs.of_run(run) for run in todo])
            if not detach:
                tracker.wait()
        except BaseException as error:
            if launcher.outlives and not isinstance(error, KeyboardInterrupt):
                logger.warning("What was submitted goes on; the same command waits for it.")
            elif not detach:
                tracker.cancel()
            raise
    return tracker.failures


def _is_done(run: Run) -> bool:
    result = run.result()
    if result is not None:
        logger.info("%s: %s, finished before", run.title, run.kind.describe(result))
    return result is not None
