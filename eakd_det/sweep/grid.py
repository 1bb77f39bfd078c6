"""A grid of configs and seeds: the runs, their folders, and the origin that they note."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.config.safe_yaml import read_yaml
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


def refuse_outdated(outdated: dict[str, str]) -> None:
    """Raise UserError if there are runs that would have to be overwritten.

    Args:
        outdated: folder -> its other origin in words; empty where it is not outdated.
    """
    lines = [f"  {folder}: {why}" for folder, why in outdated.items() if why]
    if lines:
        first = "These runs were made with something else than they would be now:"
        last = "--overwrite trains them anew, another --output-dir leaves them as they are."
        raise UserError("\n".join([first, *lines, last]))


def plan(
    kind: RunKind,
    config_files: list[str],
    seeds: list[int],
    output_dir: str,
    options: list[str],
    data: dict[str, str] | None = None,
    gpus: int = 1,
) -> list[Run]:
    """Return the runs of a grid, seed after seed, so that an unfinished sweep can be compared.

    Args:
        kind: family of the runs.
        config_files: their paths name the folders of the runs.
        seeds: of each config.
        output_dir: holds <method>/<models>/seed<s>, or <folder>/<file>/seed<s> of other paths.
        options: KEY VALUE pairs for every run.
        data: flags that name data for every run, with their values.
        gpus: processes of a training.

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
        cfg = kind.load(file, [*options, kind.seed_key, str(min(seeds))])
        method, models = kind.names(path, cfg)
        fingerprint = _fingerprint(kind, file, options, [*flags, *kind.identity(cfg, gpus)])
        record = {"method": method, "models": models, "fingerprint": fingerprint}
        record["teacher"] = configs_of([of for of, _ in kind.sources(cfg) if of])
        configs[name] = file, cfg, record, configs_of([file])
    if taken := {kind.seed_key, "OUTPUT_DIR"} & set(options[::2]):
        raise UserError(f"{' and '.join(sorted(taken))}: use --seeds and --output-dir.")
    grid = [(name, seed) for seed in dict.fromkeys(seeds) for name in configs]
    runs = []
    for number, (name, seed) in enumerate(grid, start=1):
        file, cfg, of_config, content = configs[name]
        folder = Path(output_dir, name, f"seed{seed}")
        own = [kind.seed_key, str(seed), "OUTPUT_DIR", str(folder)]
        arguments = ["--config-file", file, "--resume", *kind.arguments, *flags, *own, *options]
        dataset = Path(data["--val-json"]).stem if "--val-json" in data else kind.dataset(cfg)
        record = {"kind": kind.title, "dataset": dataset, "seed": seed, **of_config}
        record |= {"options": options, "arguments": arguments}
        title = f"[{number}/{len(grid)}] {name} seed {seed}"
        runs.append(Run(kind, title, cfg, folder, arguments, record, content))
    return runs


def _fingerprint(kind: RunKind, config_file: str, options: list[str], others: list[str]) -> str:
    """Hash of a config with its _BASE_ files, the options and others; comments do not count."""
    config, pairs = (
        {key: value for key, value in given.items() if not _is_among(key, kind.no_matter)}
        for given in (read_yaml(config_file), dict(zip(options[::2], options[1::2], strict=True)))
    )
    return content_of([config, pairs, *([others] if others else [])])


def _is_among(key: str, nodes: tuple[str, ...]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
