"""Jobs of a grid and of the teachers that are missing."""

import os
from collections.abc import Sequence
from pathlib import Path

from .grid import Run
from .job import RunJob, TeacherJob


class Jobs:
    """Builds the jobs of a sweep."""

    def __init__(self, script: str, output_dir: str, gpus: int, overwrite: bool):
        self.script, self.output_dir = os.path.abspath(script), output_dir
        self.gpus, self.overwrite = gpus, overwrite
        self.directory = os.getcwd()
        self._teachers: dict[tuple[str, str], TeacherJob] = {}

    def teachers(self, runs: Sequence[Run]) -> list[TeacherJob]:
        """Return the jobs of the missing models that runs learn from or start with."""
        for run in runs:
            for file, folder in run.kind.missing(run.cfg).items():
                if (file, folder) not in self._teachers:
                    self._teachers[file, folder] = self._teacher(file, folder, run)
        return list(self._teachers.values())

    def _teacher(self, file: str, folder: str, run: Run) -> TeacherJob:
        arguments = run.kind.source_arguments(file, run.cfg, run.arguments)
        name = "-".join(Path(file).with_suffix("").parts[-2:])
        return TeacherJob(
            *(f"Teacher {file}", run, run.kind.command(self.script, arguments, self.gpus)),
            *(self.directory, self.gpus),
            config_file=file,
            output_dir=folder,
            log=str(Path(self.output_dir, "teachers", f"{name}.txt")),
        )

    def needs(self, run: Run) -> tuple[str, ...]:
        """Return the titles of those of `teachers` that a run needs."""
        needed = run.kind.missing(run.cfg).items()
        return tuple(self._teachers[of].title for of in needed if of in self._teachers)

    def of_run(self, run: Run) -> RunJob:
        """Return the job of a run."""
        command = run.kind.command(self.script, run.arguments, self.gpus)
        how = self.directory, self.gpus, self.needs(run)
        return RunJob(run.title, run, command, *how, overwrite=self.overwrite)
