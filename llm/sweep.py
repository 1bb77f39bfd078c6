"""Several configs over several seeds; what has ended is not run again."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.errors import UserError
from eakd_det.sweep.names import method_of

from .config import load_config
from .evaluation import SCORES, evaluate
from .training import fit, has_ended, needed_runs, prepare

logger = logging.getLogger(__name__)


def sweep(
    paths: Sequence[str], seeds: Sequence[int], options: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Train and evaluate each config with each seed, and first what they need and is missing.

    A run lies in seed<N> of its config's OUTPUT_DIR. The first rows are of their teachers and of
    what their students start from: a run each.

    Returns:
        The row of each config (`row_names`) -> what `evaluate` gave for each seed.

    Raises:
        UserError: a config is wrong, or a finished run was made with another one.
    """
    configs = {path: load_config(path, list(options)) for path in dict.fromkeys(paths)}
    needed = {}
    for cfg in configs.values():
        prepare(cfg, resume=True)
        for path, run in needed_runs(cfg).items():
            run.TEST = cfg.TEST  # on the same sets, in the same way
            needed.setdefault(path, run)
    names = row_names({**needed, **configs})
    for name in names.values():
        if name.startswith("EA-") and name.removeprefix("EA-") not in names.values():
            logger.warning("%s is compared with nothing: no config is one of %s.", name, name[3:])
    rows = {names[path]: [_scores(run)] for path, run in needed.items()}
    for path, cfg in configs.items():
        rows[names[path]] = [_run(_with_seed(cfg, seed)) for seed in seeds]
    return rows


def row_names(configs: Mapping[str, CfgNode]) -> dict[str, str]:
    """File of a config -> its row: the method that it says, or the file's name without one.

    Those that several would have get the folder's name behind them, or that of folder and file.
    """
    names = {}
    for file, cfg in configs.items():
        path = Path(file)
        names[file] = method_of(cfg.DISTILL, path) if cfg.DISTILL.METHODS else path.stem
    for name in set(names.values()):
        alike = [Path(file).absolute() for file in names if names[file] == name]
        folders = {path.parent.name for path in alike}
        for file in [file for file in names if names[file] == name and len(alike) > 1]:
            folder, stem = Path(file).absolute().parent.name, Path(file).stem
            names[file] = f"{name} ({folder if len(folders) == len(alike) else f'{folder}/{stem}'})"
    return names


def _with_seed(cfg: CfgNode, seed: int) -> CfgNode:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / f"seed{seed}")
    cfg.TRAINING.SEED = seed
    return cfg


def _run(cfg: CfgNode) -> dict[str, Any]:
    if not has_ended(cfg):
        fit(cfg, resume=True)
    elif (Path(cfg.OUTPUT_DIR) / "config.yaml").read_text() != cfg.dump():
        raise UserError(
            f"{cfg.OUTPUT_DIR} was made with another config: delete it, or choose another "
            "OUTPUT_DIR."
        )
    return _scores(cfg)


def _scores(cfg: CfgNode) -> dict[str, Any]:
    path = Path(cfg.OUTPUT_DIR) / SCORES
    scores = json.loads(path.read_text()) if path.exists() else {}
    return scores if scores.get("settings") == cfg.TEST.dump() else evaluate(cfg)
