"""A grid of configs, values of a key, and seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.utils.errors import UserError

from .kinds import RunKind
from .origin import configs_of, content_of
from .run import Run
from .vary import Lever


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


@dataclass(frozen=True)
class Variant:
    """A config with a value of the varied key, or without one.

    Attributes:
        file: of the config.
        name: parts of its runs' folders above the seed, as "KD-EA.TEMPERATURE=2/a_b".
        cfg: its config, but for seed and folder.
        options: KEY VALUE pairs.
        record: what sweep.json notes of it.
        content: see `Run`.
    """

    file: str
    name: str
    cfg: CfgNode
    options: list[str]
    record: dict[str, Any]
    content: str


def plan(
    kind: RunKind,
    config_files: Sequence[str],
    seeds: Sequence[int],
    output_dir: str,
    options: list[str],
    data: dict[str, str] | None = None,
    gpus: int = 1,
    vary: Sequence[str] = (),
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
        vary: a key and its values, for each config on which it can act.

    Raises:
        UserError: a config, an option, a value or a flag is wrong, or two configs have one name.
    """
    data = data or {}
    if wrong := data.keys() - set(kind.flags):
        raise UserError(f"{', '.join(sorted(wrong))}: not for {kind.title}.")
    if taken := {kind.seed_key, "OUTPUT_DIR"} & {*options[::2], *vary[:1]}:
        raise UserError(f"{' and '.join(sorted(taken))}: use --seeds and --output-dir.")
    planner = _Planner(kind, Lever.parse(vary, options), options, str(min(seeds)), data, gpus)
    variants = planner.variants(config_files)
    grid = [(variant, seed) for seed in dict.fromkeys(seeds) for variant in variants]
    return [
        planner.run(variant, seed, output_dir, f"{number}/{len(grid)}")
        for number, (variant, seed) in enumerate(grid, start=1)
    ]


@dataclass(frozen=True)
class _Planner:
    """Loads the configs of a grid.

    Attributes:
        kind, options, data, gpus: see `plan`.
        lever: varied key.
        seed: with which the configs are loaded.
    """

    kind: RunKind
    lever: Lever
    options: list[str]
    seed: str
    data: dict[str, str]
    gpus: int

    @property
    def flags(self) -> list[str]:
        """Flags that name data, with their values."""
        return [word for pair in self.data.items() for word in pair]

    def variants(self, config_files: Sequence[str]) -> list[Variant]:
        """Return the variants of all configs.

        Raises:
            UserError: see `plan`.
        """
        variants: dict[str, Variant] = {}
        for file in dict.fromkeys(config_files):
            for variant in self._of_config(file):
                if variant.name in variants:
                    raise UserError(
                        f"{variants[variant.name].file} and {file} would both be {variant.name}: "
                        "sweep them apart."
                    )
                variants[variant.name] = variant
        key = self.lever.key
        if key and all(key not in variant.options for variant in variants.values()):
            self._load(config_files[0], [key, *self.lever.values.values()][:2])  # raises for a typo
            raise UserError(f"--vary {key}: it can act on none of the configs.")
        return [*variants.values()]

    def run(self, variant: Variant, seed: int, output_dir: str, place: str) -> Run:
        """Return the run of a variant and a seed; `place` is that in the grid, as "3/10"."""
        kind, cfg = self.kind, variant.cfg
        folder = Path(output_dir, variant.name, f"seed{seed}")
        own = [kind.seed_key, str(seed), "OUTPUT_DIR", str(folder), *variant.options]
        arguments = ["--config-file", variant.file, "--resume", *kind.arguments, *self.flags, *own]
        has_data = "--val-json" in self.data
        dataset = Path(self.data["--val-json"]).stem if has_data else kind.dataset(cfg)
        record = {"kind": kind.title, "dataset": dataset, "seed": seed, **variant.record}
        record |= {"options": variant.options, "arguments": arguments}
        title = f"[{place}] {variant.name} seed {seed}"
        return Run(kind, title, cfg, folder, arguments, record, variant.content)

    def _of_config(self, file: str) -> Iterator[Variant]:
        path = Path(file).absolute()
        plain = self._load(file, [])
        method, models = self.kind.names(path, plain)
        more = models.removeprefix(self.kind.models(plain))
        values: dict[str, CfgNode] = {}
        for lever, pair in self.lever.variants(method):
            cfg = self._load(file, pair)
            if same := next((name for name, other in values.items() if other == cfg), None):
                raise UserError(f"--vary: {same} and {lever} are one value for {file}.")
            values[lever] = cfg
            if own := self.kind.separate_sources(plain, cfg, lever):
                pair = [*pair, *own]
                cfg = self._load(file, pair)
            of_path, networks = self.kind.split(path)
            name = "/".join([f"{of_path}-{lever}" if lever else of_path, networks])
            record = {"method": f"{method} {lever}".strip(), "models": self.kind.models(cfg) + more}
            yield self._variant(file, name, cfg, [*self.options, *pair], record)

    def _load(self, file: str, pair: list[str]) -> CfgNode:
        return self.kind.load(file, [*self.options, *pair, self.kind.seed_key, self.seed])

    def _variant(
        self, file: str, name: str, cfg: CfgNode, options: list[str], record: dict[str, Any]
    ) -> Variant:
        others = [*self.flags, *self.kind.identity(cfg, self.gpus)]
        record["fingerprint"] = _fingerprint(self.kind, file, options, others)
        record["teacher"] = configs_of([of for of, _ in self.kind.sources(cfg) if of])
        return Variant(file, name, cfg, options, record, configs_of([file]))


def _fingerprint(kind: RunKind, config_file: str, options: list[str], others: list[str]) -> str:
    """Hash of a config with its _BASE_ files, the options and others; comments do not count."""
    config, pairs = (
        {key: value for key, value in given.items() if not _is_among(key, kind.no_matter)}
        for given in (read_yaml(config_file), dict(zip(options[::2], options[1::2], strict=True)))
    )
    return content_of([config, pairs, *([others] if others else [])])


def _is_among(key: str, nodes: tuple[str, ...]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)
