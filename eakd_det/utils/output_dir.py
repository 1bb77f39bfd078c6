"""Checks of OUTPUT_DIR for an earlier run, and its removal with --overwrite."""

import argparse
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from .errors import UserError
from .files import write_atomically

METRICS = "metrics.json"
DESCRIPTIONS = ("config.yaml", "run.json")  # written by the set-up of a run


@dataclass(frozen=True)
class OutputFiles:
    """Files that a kind of run writes to OUTPUT_DIR, as glob patterns.

    Attributes:
        results: files of which one at least exists in the folder of a run.
        others: files that are removed with them.
    """

    results: tuple[str, ...]
    others: tuple[str, ...]

    def check(
        self, output_dir: str, *, resume: bool, overwrite: bool, inputs: Iterable[str] = ()
    ) -> None:
        """Raise if a start would overwrite a run without --overwrite; write nothing.

        Args:
            resume, overwrite: flags of the command line.
            inputs: checkpoints or model folders that the run reads.

        Raises:
            UserError: the folder holds a run and neither or both flags are given, or --overwrite
                would remove an input.
        """
        if resume and overwrite:
            raise UserError("--resume continues and --overwrite starts again: give one of them.")
        if overwrite:
            self._check_inputs(output_dir, inputs)
        elif not resume and self._find(output_dir, self.results):
            raise UserError(
                f"OUTPUT_DIR {output_dir} holds a run: --resume continues it, --overwrite starts "
                "again."
            )

    @contextmanager
    def starting(self, output_dir: str, *, overwrite: bool) -> Iterator[None]:
        """Remove the earlier run, if `overwrite`, after the with-block that sets up a new one.

        If the block raises UserError, the earlier run is kept, including its config.yaml; without
        one, no config.yaml is left.
        """
        paths = [Path(output_dir, name) for name in DESCRIPTIONS]
        before = {p: p.read_bytes() for p in paths if comm.is_main_process() and p.exists()}
        try:
            yield
        except UserError:
            if comm.is_main_process():
                for path in paths:
                    _restore(path, before.get(path))
            raise
        if overwrite:
            self.remove(output_dir)

    def remove(self, output_dir: str) -> None:
        """Remove a run's files in the main process, while the others wait. Other files stay."""
        if comm.is_main_process():
            for path in self._find(output_dir, (*self.results, *self.others)):
                if path.name == METRICS:
                    os.truncate(path, 0)  # the writer of the new run may have it open
                elif path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        comm.synchronize()

    def _find(self, output_dir: str, patterns: Iterable[str]) -> list[Path]:
        found = (path for pattern in patterns for path in Path(output_dir).glob(pattern))
        # A start that raised leaves an empty metrics file.
        return [p for p in found if p.name != METRICS or p.stat().st_size]

    def _check_inputs(self, output_dir: str, inputs: Iterable[str]) -> None:
        removed = [p.resolve() for p in self._find(output_dir, (*self.results, *self.others))]
        for name in filter(None, inputs):
            path = Path(name).resolve()
            if any(path == p or path in p.parents or p in path.parents for p in removed):
                raise UserError(
                    f"--overwrite would remove {name}, which the run reads: choose another "
                    "OUTPUT_DIR."
                )


def _restore(path: Path, content: bytes | None) -> None:
    """Write the content of a file again; None removes it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    with write_atomically(str(path), "wb") as f:
        f.write(content)


# Files that Detectron2's trainer and ours write for detectors and classifiers.
TRAINER_FILES = OutputFiles(
    results=(
        "last_checkpoint",
        f"model_{7 * '[0-9]'}.pth",
        "model_final.pth",
        "model_best.pth",
        METRICS,
        "result.json",
    ),
    others=(
        "events.out.tfevents.*",
        "student.yaml",
        "non_finite_rank*.pth",
        "inference/coco_instances_results.json",
        "inference/instances_predictions.pth",
        "inference/*/coco_instances_results.json",
        "inference/*/instances_predictions.pth",
    ),
)


def check_output_dir(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check OUTPUT_DIR of a detector's or classifier's config, as `OutputFiles.check` does."""
    inputs = cfg.MODEL.WEIGHTS, cfg.TEACHER.WEIGHTS
    options = {"resume": args.resume, "overwrite": args.overwrite, "inputs": inputs}
    TRAINER_FILES.check(cfg.OUTPUT_DIR, **options)
