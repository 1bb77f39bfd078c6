"""A run of a sweep: its folder, and the origin that it notes."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_json
from eakd_det.utils.lock import RUNNING, Lock
from eakd_det.utils.output_dir import DESCRIPTIONS

from .kinds import RunKind
from .origin import change, configs_of, content_of, weights_of

logger = logging.getLogger(__name__)

RECORD = "sweep.json"
LOG = "stdout.txt"  # output of the process


@dataclass
class Run:
    """One config with one seed.

    Attributes:
        kind: its family.
        title: "[3/15] EA-KD/resnet20_resnet8 seed 2".
        cfg: its config, but for seed and folder.
        folder: its OUTPUT_DIR.
        arguments: of the script that trains it.
        record: contents of sweep.json.
        content: hash of the config file and of its teacher's (`configs_of`), when it was planned.
    """

    kind: RunKind
    title: str
    cfg: CfgNode
    folder: Path
    arguments: list[str]
    record: dict[str, Any]
    content: str

    def result(self) -> dict[str, Any] | None:
        """Return result.json of the run, if it is finished and of the same origin."""
        result, noted = read_json(self.folder / "result.json"), self._noted()
        if not result or not noted or self._change(noted):
            return None
        return result if self.kind.is_current(result, self.cfg) else None

    def outdated(self) -> str:
        """Describe the other origin of a run in the folder; empty if there is none worth keeping.

        A run that has left neither a result nor weights is not worth keeping.
        """
        noted, kept = self._noted(), ("result.json", *self.kind.weights)
        holds_run = any(path for pattern in kept for path in self.folder.rglob(pattern))
        return self._change(noted) if noted and noted["fingerprint"] and holds_run else ""

    def lock(self) -> Lock:
        """Return the lock of the folder: the file of the run's output, which its process has open.

        Raises:
            UserError: the folder holds something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        own, record = (LOG, RECORD, RUNNING), self.folder / RECORD
        others = [path for path in self.folder.iterdir() if not path.name.startswith(own)]
        if others and not record.exists():
            raise UserError(f"{self.folder} was not made by a sweep: choose another --output-dir.")
        return Lock(str(self.folder / LOG), str(self.folder / RUNNING))

    def start(self, *, overwrite: bool = False) -> None:
        """Write sweep.json, while `lock` is held.

        Args:
            overwrite: remove an outdated run before; the user's own files in the folder stay.

        Raises:
            UserError: the folder holds an outdated run, which is not to be overwritten, or a config
                file has changed since the run was planned.
        """
        file = self.arguments[1]
        if configs_of([file]) != self.content:
            raise UserError(
                f"{file}, or its teacher's config, has changed since the sweep was started: start "
                "the sweep again."
            )
        record, noted = self.folder / RECORD, self._noted()
        if noted and self._change(noted):
            if not overwrite and (why := self.outdated()):
                raise UserError(f"{self.folder} was made with {why}")
            logger.info("%s: config, options or teacher have changed, training again", self.title)
            # Stopped here, it starts over again.
            write_json(record, {**self.record, "fingerprint": ""})
            self.kind.files.remove(str(self.folder))
            for name in DESCRIPTIONS:
                (self.folder / name).unlink(missing_ok=True)
            os.truncate(self.folder / LOG, 0)
        write_json(record, self._now())

    def note(self, outcome: dict[str, Any]) -> None:
        """Add the outcome of a training to sweep.json, also of one refused by `start`."""
        noted = self._noted() or {**self.record, "fingerprint": ""}
        write_json(self.folder / RECORD, {**noted, "outcome": outcome})

    def _now(self) -> dict[str, Any]:
        """Return the record with the hash of the weights that the run learns from."""
        hashes = [weights_of(weights) for _, weights in self.kind.sources(self.cfg)]
        several = content_of(hashes) if hashes and all(hashes) else ""
        return {**self.record, "teacher_weights": hashes[0] if len(hashes) == 1 else several}

    def _noted(self) -> dict[str, Any]:
        return read_json(self.folder / RECORD)

    def _change(self, noted: dict[str, Any]) -> str:
        names = [file or weights for file, weights in self.kind.sources(self.cfg)]
        return change(noted, self._now(), f"its teacher {' or '.join(names)}")
