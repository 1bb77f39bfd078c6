"""Evaluation of generated answers on sets of instructions."""

import json
import logging
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from detectron2.config import CfgNode

from eakd_det.distillers import scalar_defaults
from eakd_det.utils.device import available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json

from .config import load_config
from .data import encode_prompt, read_instructions
from .generation import generate
from .instructions import path_of
from .models import check_causal, load_model, load_tokenizer, num_positions
from .prompts import PROMPTS
from .results import SCORES, TRAIN_RESULT, figures_of
from .rouge import exact_match, rouge_l

logger = logging.getLogger(__name__)

METRICS = {"rougeL": rouge_l, "exact": exact_match}


def named_sets(cfg: CfgNode) -> dict[str, str]:
    """Return TEST.SETS as name -> path.

    Raises:
        UserError: there are no sets, or an entry is not NAME=PATH.
    """
    sets = {}
    for entry in cfg.TEST.SETS:
        name, sign, path = str(entry).partition("=")
        if not (name and sign and path):
            raise UserError(f"TEST.SETS: {entry!r} must be NAME=PATH.")
        sets[name] = path_of(path)
    if not sets:
        raise UserError('TEST.SETS is empty: name JSONL files, as ("Dolly=datasets/dolly.jsonl",).')
    return sets


def evaluate(cfg: CfgNode, weights: str = "") -> dict[str, Any]:
    """Score a run's model on TEST.SETS, by greedy decoding or by sampling with each of TEST.SEEDS.

    Args:
        weights: a path or hub name; empty: the model in OUTPUT_DIR, where its scores and the
            answers of the first seed are also written.

    Returns:
        "scores": set -> metric -> one value in percent per seed; "settings": TEST as YAML.

    Raises:
        UserError: there is no model or no set, or MAX_NEW_TOKENS leaves no room for a prompt.
    """
    if not weights and not (Path(cfg.OUTPUT_DIR) / "config.json").exists():
        raise UserError(f"{cfg.OUTPUT_DIR} has no model; train it first (tools/train_lm.py).")
    name = weights or cfg.OUTPUT_DIR
    sets = {key: read_instructions(path) for key, path in named_sets(cfg).items()}
    model = load_model(name, cfg.MODEL.DTYPE, "--model")
    model.to(available_device())
    tokenizer = load_tokenizer(name, "--model")
    options = {key: cfg.TEST[key.upper()] for key in scalar_defaults(generate)}
    limit = _max_prompt(cfg, num_positions(model))
    prompt, scores, answers = PROMPTS[cfg.DATASET.PROMPT], {}, {}
    first = next(iter(sets.values()))[0]
    tokens = 2 * encode_prompt(tokenizer, prompt(first.instruction, first.context))
    check_causal(model, torch.tensor(tokens, device=model.device), "--model")
    for key, examples in sets.items():
        prompts = [prompt(example.instruction, example.context) for example in examples]
        references = [example.answers for example in examples]
        scores[key] = {metric: [] for metric in METRICS}
        for seed in cfg.TEST.SEEDS or (None,):
            generated = generate(model, tokenizer, prompts, limit, seed, **options)
            answers.setdefault(key, generated)
            for metric, score in METRICS.items():
                scores[key][metric].append(score(generated, references))
        logger.info("%s on %s: ROUGE-L %.2f", name, key, mean(scores[key]["rougeL"]))
    result = {"settings": cfg.TEST.dump(), "scores": scores}
    if not weights:
        write_json(Path(cfg.OUTPUT_DIR, SCORES), {**result, "answers": answers}, indent=1)
    return result


def write_result(cfg: CfgNode) -> None:
    """Evaluate a trained run, and its teacher where that has a run, and write result.json.

    Scores that an earlier evaluation has left of the same model with the same settings are kept.

    Raises:
        UserError: as of `evaluate`.
    """
    found, teacher = _scores_of(cfg), None
    if cfg.DISTILL.METHODS and not cfg.TEACHER.WEIGHTS:
        own = load_config(cfg.TEACHER.CONFIG_FILE)
        own.TEST = cfg.TEST
        teacher = figures_of(_scores_of(own)["scores"])["rougeL"]
    trained = json.loads((Path(cfg.OUTPUT_DIR) / TRAIN_RESULT).read_text())
    result = {**figures_of(found["scores"]), "teacher_rougeL": teacher}
    result |= {"seconds": trained["seconds"], "settings": found["settings"]}
    write_json(Path(cfg.OUTPUT_DIR, "result.json"), result)


def _scores_of(cfg: CfgNode) -> dict[str, Any]:
    """Return the scores of the model in OUTPUT_DIR; it is evaluated if need be."""
    path, trained = Path(cfg.OUTPUT_DIR) / SCORES, Path(cfg.OUTPUT_DIR) / TRAIN_RESULT
    if path.exists() and path.stat().st_mtime >= trained.stat().st_mtime:
        scores = json.loads(path.read_text())
        if scores.get("settings") == cfg.TEST.dump():
            return scores
    return evaluate(cfg)


def _max_prompt(cfg: CfgNode, positions: int | None) -> int:
    """Return the number of prompt tokens that leaves room for the answer."""
    new = cfg.TEST.MAX_NEW_TOKENS
    if positions is not None and new >= positions:
        raise UserError(
            f"TEST.MAX_NEW_TOKENS {new} leaves no room for a prompt: the model has {positions} "
            "positions."
        )
    return max(min(cfg.DATASET.MAX_LENGTH, positions or cfg.DATASET.MAX_LENGTH) - new, 1)
