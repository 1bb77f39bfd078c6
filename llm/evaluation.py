"""Generation on sets of instructions, and its scores."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from eakd_det.distillers import scalar_defaults
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .data import encode_prompt, read_instructions
from .generation import generate
from .instructions import path_of
from .models import load_model, load_tokenizer, num_positions, refuse_to_look_ahead
from .prompts import PROMPTS
from .rouge import exact_match, rouge_l

logger = logging.getLogger(__name__)

SCORES = "rouge.json"
METRICS = {"rougeL": rouge_l, "exact": exact_match}


def named_sets(cfg: CfgNode) -> dict[str, str]:
    """TEST.SETS as name -> path.

    Raises:
        UserError: there is none, or one is not NAME=PATH.
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
    """Score a run's model on TEST.SETS: greedy, or one sampling for each of TEST.SEEDS.

    Args:
        weights: a path or hub name; empty is the model in OUTPUT_DIR, whose scores, and the answers
            of the first seed, are also written there.

    Returns:
        "scores": set -> metric -> one figure in percent for each seed; "settings", TEST as YAML.

    Raises:
        UserError: there is no model, or no set, or answers are to be longer than the model can.
    """
    if not weights and not (Path(cfg.OUTPUT_DIR) / "config.json").exists():
        raise UserError(f"{cfg.OUTPUT_DIR} has no model; train it first (tools/train_lm.py).")
    name = weights or cfg.OUTPUT_DIR
    sets = {key: read_instructions(path) for key, path in named_sets(cfg).items()}
    model = load_model(name, cfg.MODEL.DTYPE, "--model")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(name, "--model")
    options = {key: cfg.TEST[key.upper()] for key in scalar_defaults(generate)}
    limit = _longest_prompt(cfg, num_positions(model))
    prompt, scores, answers = PROMPTS[cfg.DATASET.PROMPT], {}, {}
    first = next(iter(sets.values()))[0]
    tokens = 2 * encode_prompt(tokenizer, prompt(first.instruction, first.context))
    refuse_to_look_ahead(model, torch.tensor(tokens, device=model.device), "--model")
    for key, examples in sets.items():
        prompts = [prompt(example.instruction, example.context) for example in examples]
        references = [example.answers for example in examples]
        scores[key] = {metric: [] for metric in METRICS}
        for seed in cfg.TEST.SEEDS or (None,):
            given = generate(model, tokenizer, prompts, limit, seed, **options)
            answers.setdefault(key, given)
            for metric, score in METRICS.items():
                scores[key][metric].append(score(given, references))
        logger.info("%s on %s: ROUGE-L %.2f", name, key, mean(scores[key]["rougeL"]))
    result = {"settings": cfg.TEST.dump(), "scores": scores}
    if not weights:
        with write_atomically(str(Path(cfg.OUTPUT_DIR) / SCORES)) as file:
            json.dump({**result, "answers": answers}, file, indent=1)
    return result


def _longest_prompt(cfg: CfgNode, positions: int | None) -> int:
    """Tokens that leave room for the answer."""
    new = cfg.TEST.MAX_NEW_TOKENS
    if positions is not None and new >= positions:
        raise UserError(
            f"TEST.MAX_NEW_TOKENS {new} leaves no room for a prompt: the model has {positions} "
            "positions."
        )
    return max(min(cfg.DATASET.MAX_LENGTH, positions or cfg.DATASET.MAX_LENGTH) - new, 1)


def mean(values: list[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)
