"""A grid of configs and seeds: the runs, their folders, and what makes two runs the same."""

import fcntl
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from detectron2.config import CfgNode

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically
from eakd_det.utils.output_dir import DESCRIPTIONS, TRAINER_FILES

from .kinds import SweepKind
from .origin import change, configs_of, content_of, weights_of

logger = logging.getLogger(__name__)

RECORD = "sweep.json"


@dataclass
class Run:
    """One config with one seed.

    Attributes:
        kind: of run.
        title: "[3/15] EA-KD/resnet20_resnet8 seed 2".
        cfg: what the run will see, but for seed and folder.
        folder: gets what it leaves.
        arguments: of the script that trains it.
        record: what sweep.json notes of it.
    """

    kind: SweepKind
    title: str
    cfg: CfgNode
    folder: Path
    arguments: list[str]
    record: dict[str, Any]

    def result(self) -> dict[str, Any] | None:
        """result.json of the run, if it is finished and was made with what this one says."""
        path, noted = self.folder / "result.json", self._noted()
        if not path.exists() or noted is None or self._change(noted):
            return None
        return json.loads(path.read_text())

    def outdated(self) -> str:
        """Describe a run in the folder that is worth keeping and was made with something else.

        Returns:
            That in words; empty where there is none. What left neither a result nor weights is
            worth nothing.
        """
        noted = self._noted()
        holds_run = (self.folder / "result.json").exists() or any(self.folder.rglob("*.pth"))
        return (
            self._change(noted) if noted is not None and noted["fingerprint"] and holds_run else ""
        )

    def open_log(self, *, overwrite: bool = False) -> TextIO:
        """The file for the run's output, locked as long as the run or its process has it open.

        Args:
            overwrite: remove an outdated run in the folder; the user's own files there stay.

        Raises:
            UserError: another process trains it, or the folder holds something else, or an outdated
                run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log, record = self.folder / "stdout.txt", self.folder / RECORD
        others = [
            p for p in self.folder.iterdir() if not p.name.startswith((log.name, record.name))
        ]
        if others and not record.exists():
            raise UserError(f"{self.folder} was not made by a sweep: choose another --output-dir.")
        file = open(log, "a")  # noqa: SIM115  (stays open)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"another process trains it: see {log}") from None
        noted = self._noted()
        if noted is not None and self._change(noted):
            if not overwrite and (why := self.outdated()):
                file.close()
                raise UserError(f"{self.folder} was made with {why}")
            logger.info("%s: what it is made with has changed, it starts over", self.title)
            self._note({**self.record, "fingerprint": ""})  # stopped here, it starts over again
            TRAINER_FILES.remove(str(self.folder))
            for name in DESCRIPTIONS:
                (self.folder / name).unlink(missing_ok=True)
            file.truncate(0)
        self._note(self._now())
        return file

    def _now(self) -> dict[str, Any]:
        """The record, with the teacher's weights as they are."""
        return {**self.record, "teacher_weights": weights_of(self.kind.teacher_files(self.cfg)[1])}

    def _noted(self) -> dict[str, Any] | None:
        path = self.folder / RECORD
        return json.loads(path.read_text()) if path.exists() else None

    def _change(self, noted: dict[str, Any]) -> str:
        file, weights = self.kind.teacher_files(self.cfg)
        return change(noted, self._now(), f"its teacher {file or weights}")

    def _note(self, record: dict[str, Any]) -> None:
        with write_atomically(str(self.folder / RECORD)) as f:
            json.dump(record, f, indent=2)


def refuse_outdated(outdated: dict[str, str], elsewhere: str = "--output-dir") -> None:
    """Raise UserError if there are runs that would have to be overwritten.

    Args:
        outdated: folder -> what it was made with, in words; empty where it is not outdated.
        elsewhere: what names another folder.
    """
    lines = [f"  {folder}: {why}" for folder, why in outdated.items() if why]
    if lines:
        first = "These runs were made with something else than they would be now:"
        last = f"--overwrite trains them anew, another {elsewhere} leaves them as they are."
        raise UserError("\n".join([first, *lines, last]))


def plan(
    kind: SweepKind,
    config_files: list[str],
    seeds: list[int],
    output_dir: str,
    options: list[str],
    data: dict[str, str] | None = None,
) -> list[Run]:
    """The runs of a grid, seed after seed, so that what there is of a sweep can be compared.

    Args:
        kind: of the runs.
        config_files: their paths name the folders of the runs.
        seeds: of each config.
        output_dir: gets <method>/<models>/seed<s>, or <folder>/<file>/seed<s> of other paths.
        options: KEY VALUE pairs for every run.
        data: flags that name data for every run, with their values.

    Raises:
        UserError: a config, an option or a flag is wrong, or two configs have one name.
    """
    data = data or {}
    if wrong := data.keys() - set(kind.flags):
        raise UserError(f"{', '.join(sorted(wrong))}: not for {kind.title}.")
    flags = [word for pair in data.items() for word in pair]
    configs = {}
    for file in dict.fromkeys(config_files):
        path = Path(file).absolute()
        name = "/".join(kind.split(path))
        if name in configs:
            raise UserError(
                f"{configs[name][0]} and {file} would both be {name}: sweep them apart."
            )
        cfg = kind.load(file, [*options, "SEED", str(min(seeds))])
        method, models = kind.names(path, cfg)
        fingerprint = _fingerprint(kind, file, options, flags)
        record = {"method": method, "models": models, "fingerprint": fingerprint}
        teacher, _ = kind.teacher_files(cfg)
        record["teacher"] = configs_of([teacher] if teacher else [])
        configs[name] = file, cfg, record
    if taken := {"SEED", "OUTPUT_DIR"} & set(options[::2]):
        raise UserError(f"{' and '.join(sorted(taken))}: --seeds and --output-dir say that.")
    grid = [(name, seed) for seed in dict.fromkeys(seeds) for name in configs]
    runs = []
    for number, (name, seed) in enumerate(grid, start=1):
        file, cfg, of_config = configs[name]
        folder = Path(output_dir, name, f"seed{seed}")
        own = ["SEED", str(seed), "OUTPUT_DIR", str(folder)]
        arguments = ["--config-file", file, "--resume", *flags, *own, *options]
        dataset = Path(data["--val-json"]).stem if "--val-json" in data else kind.dataset(cfg)
        record = {"kind": kind.title, "dataset": dataset, "seed": seed, **of_config}
        record |= {"options": options, "arguments": arguments}
        title = f"[{number}/{len(grid)}] {name} seed {seed}"
        runs.append(Run(kind, title, cfg, folder, arguments, record))
    return runs


def _fingerprint(kind: SweepKind, config_file: str, options: list[str], flags: list[str]) -> str:
    """Hash of what a config says, with its _BASE_ files and the options; comments do not count."""
    pairs = dict(zip(options[::2], options[1::2], strict=True))
    pairs = {key: value for key, value in pairs.items() if key not in kind.no_matter}
    return content_of([read_yaml(config_file), pairs, *([flags] if flags else [])])
