"""Jobs of a grid and of the teachers that are missing."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.files import write_json
from eakd_det.utils.lock import Lock

from .job import Job, Outcome
from .origin import configs_of, content_of
from .run import Run


@dataclass(frozen=True)
class RunJob(Job):
    """Training of a run of the grid.

    Attributes:
        overwrite: train a run of another origin anew.
    """

    overwrite: bool = False

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def content(self) -> str:
        return content_of([self.run.record["fingerprint"], self.run.content])

    def result(self) -> str | None:
        result = self.run.result()
        return None if result is None else self.run.kind.describe(result)

    def lock(self) -> Lock:
        return self.run.lock()

    @contextmanager
    def open_log(self, lock: Lock) -> Iterator[TextIO]:
        self.run.start(overwrite=self.overwrite)
        yield lock.file

    def note(self, outcome: Outcome) -> None:
        self.run.note(asdict(outcome))


@dataclass(frozen=True)
class TeacherJob(Job):
    """Training of a model that runs learn from or start with.

    Attributes:
        config_file: of the model.
        output_dir: its OUTPUT_DIR.
        log: file of the process's output.
        content: hash of the config.
    """

    waits: ClassVar[bool] = True
    config_file: str = ""
    output_dir: str = ""
    log: str = ""
    content: str = ""

    @property
    def folder(self) -> Path:
        return Path(self.output_dir)

    @property
    def outcome_file(self) -> Path:
        """File of the outcome of the last attempt, beside the log."""
        return Path(self.log).with_suffix(".json")

    def result(self) -> str | None:
        return None if self.config_file in self.run.kind.missing(self.run.cfg) else "done"

    def lock(self) -> Lock:
        return Lock.of_folder(self.output_dir)

    @contextmanager
    def open_log(self, lock: Lock) -> Iterator[TextIO]:
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        self.outcome_file.unlink(missing_ok=True)
        with open(self.log, "a") as log:
            yield log

    def note(self, outcome: Outcome) -> None:
        write_json(self.outcome_file, asdict(outcome))


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
        name, title = "-".join(Path(file).with_suffix("").parts[-2:]), f"Teacher {file}"
        if folder != read_yaml(file).get("OUTPUT_DIR", folder):  # runs differ in their teachers
            name, title = f"{name}-{Path(folder).name}", f"{title} in {folder}"
        return TeacherJob(
            *(title, run, run.kind.command(self.script, arguments, self.gpus)),
            *(self.directory, self.gpus),
            config_file=file,
            output_dir=folder,
            log=str(Path(self.output_dir, "teachers", f"{name}.txt")),
            content=configs_of([file]),
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
