"""Several configs over several seeds; what has ended is not run again."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.sweep.grid import RECORD, refuse_outdated
from eakd_det.sweep.names import method_of
from eakd_det.sweep.origin import change, configs_of, content_of, weights_of
from eakd_det.utils.files import write_atomically
from eakd_det.utils.lock import run_lock

from .config import load_config
from .evaluation import SCORES, evaluate
from .training import FILES, RESULT, fit, has_ended, needed_runs, prepare
from .training import weights_of as model_of

logger = logging.getLogger(__name__)


def sweep(
    paths: Sequence[str],
    seeds: Sequence[int],
    options: Sequence[str] = (),
    *,
    overwrite: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Train and evaluate each config with each seed, and first what they need and is missing.

    A run lies in seed<N> of its config's OUTPUT_DIR. The first rows are of their teachers and of
    what their students start from: a run each.

    Args:
        overwrite: whether runs that were made with another config or teacher are trained anew.

    Returns:
        The row of each config (`row_names`) -> what `evaluate` gave for each seed.

    Raises:
        UserError: a config is wrong, or there are such runs, and they are not to be overwritten.
    """
    configs = {path: load_config(path, list(options)) for path in dict.fromkeys(paths)}
    runs = {path: [_with_seed(cfg, seed) for seed in seeds] for path, cfg in configs.items()}
    needed = {}
    for cfg in configs.values():
        if not overwrite:  # also by a teacher that was gone and is trained anew here
            every = [run for of_config in runs.values() for run in of_config]
            refuse_outdated({run.OUTPUT_DIR: _outdated(run) for run in every}, "OUTPUT_DIR")
        prepare(cfg, resume=True)
        for path, run in needed_runs(cfg).items():
            run.TEST = cfg.TEST  # on the same sets, in the same way
            needed.setdefault(path, run)
    names = row_names({**needed, **configs})
    for name in names.values():
        if name.startswith("EA-") and name.removeprefix("EA-") not in names.values():
            logger.warning("%s is compared with nothing: no config is one of %s.", name, name[3:])
    rows = {names[path]: [_scores(run)] for path, run in needed.items()}
    for path, of_config in runs.items():
        rows[names[path]] = [_run(run, overwrite) for run in of_config]
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


def _run(cfg: CfgNode, overwrite: bool) -> dict[str, Any]:
    """Train and evaluate what is left of a run; where another process does so, wait for it."""
    folder = Path(cfg.OUTPUT_DIR)
    with run_lock(cfg.OUTPUT_DIR):
        why = _outdated(cfg)
        if why and overwrite:
            logger.info("%s was made with %s: it starts over", folder, why)
            FILES.remove(cfg.OUTPUT_DIR)
        elif why:
            refuse_outdated({cfg.OUTPUT_DIR: why}, "OUTPUT_DIR")
        if not has_ended(cfg):
            folder.mkdir(parents=True, exist_ok=True)
            with write_atomically(str(folder / RECORD)) as file:
                json.dump(_origin(cfg), file, indent=2)
            fit(cfg, resume=True)
        return _scores(cfg)


def _outdated(cfg: CfgNode) -> str:
    """Describe what the run in the folder was made with and would not be now, or return ""."""
    folder = Path(cfg.OUTPUT_DIR)
    if not (has_ended(cfg) or any(folder.glob("checkpoint-*"))):
        return ""
    if (folder / RECORD).exists():
        noted = json.loads((folder / RECORD).read_text())
        return change(noted, _origin(cfg), " or ".join(_sources(cfg)))
    config = folder / "config.yaml"  # of an earlier version, which noted nothing else
    return "another config" if config.exists() and config.read_text() != cfg.dump() else ""


def _origin(cfg: CfgNode) -> dict[str, str]:
    """As `change` takes it; what is only evaluated otherwise is the same run."""
    cfg, sources = cfg.clone(), _sources(cfg)
    del cfg["TEST"]
    hashes = [weights_of(path) for path in sources.values()]
    return {
        "fingerprint": content_of(cfg.dump()),
        "teacher": configs_of(list(sources)),
        "teacher_weights": content_of(hashes) if hashes and all(hashes) else "",
    }


def _sources(cfg: CfgNode) -> dict[str, str]:
    """Weights that a run learns and starts from: by their run's config, or as they are named."""
    nodes = [cfg.TEACHER] if cfg.DISTILL.METHODS else []
    paths = [(node.CONFIG_FILE, model_of(node)) for node in (*nodes, cfg.MODEL)]
    return {file or weights: weights for file, weights in paths if weights}


def _scores(cfg: CfgNode) -> dict[str, Any]:
    """Scores that `evaluate` has left of this model in the same way, or gives now."""
    path, trained = Path(cfg.OUTPUT_DIR) / SCORES, Path(cfg.OUTPUT_DIR) / RESULT
    if path.exists() and path.stat().st_mtime >= trained.stat().st_mtime:
        scores = json.loads(path.read_text())
        if scores.get("settings") == cfg.TEST.dump():
            return scores
    return evaluate(cfg)
