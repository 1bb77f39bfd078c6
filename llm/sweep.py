"""Several configs over several seeds; what has ended is not run again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from eakd_det.errors import UserError

from .config import load_config
from .evaluation import SCORES, evaluate
from .training import fit, has_ended, needed_runs, prepare


def sweep(
    paths: Sequence[str], seeds: Sequence[int], options: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Train and evaluate each config with each seed, and first what they need and is missing.

    A run lies in seed<N> of its config's OUTPUT_DIR. The first rows are of their teachers and of
    what their students start from: a run each.

    Returns:
        The name of each config -> what `evaluate` gave for each seed.

    Raises:
        UserError: a config is wrong, or a finished run was made with another one.
    """
    rows = {}
    configs = [(Path(path).stem, load_config(path, list(options))) for path in paths]
    for _, cfg in configs:
        prepare(cfg, resume=True)
        for name, run in needed_runs(cfg).items():
            run.TEST = cfg.TEST  # on the same sets, in the same way
            rows.setdefault(name, [_scores(run)])
    for name, cfg in configs:
        rows[name] = [_run(_with_seed(cfg, seed)) for seed in seeds]
    return rows


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
