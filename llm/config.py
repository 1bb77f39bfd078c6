"""The configuration keys of language models: a small root of its own, in Detectron2's manner."""

import dataclasses
from enum import Enum
from typing import Any

import torch
from detectron2.config import CfgNode
from transformers import TrainingArguments

from eakd_det.config.defaults import distill_node
from eakd_det.config.merge import merge_config
from eakd_det.distillers import method_settings, scalar_defaults
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import HALVES

from .distillers import DISTILLERS
from .generation import generate
from .prompts import PROMPTS

DTYPES = ("auto", "float32", *HALVES)  # of weights in memory; auto is as they are saved
# Of TrainingArguments: what the root says once, and what the tools' own flags say.
NOT_IN_TRAINING = ("output_dir", "resume_from_checkpoint", "do_train", "do_eval", "do_predict")
# Its fields that are tables of options; other such fields may name a JSON file.
OPEN_IN_TRAINING = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs")


def language_config() -> CfgNode:
    """Every key with its default; those of the losses and the training come from signatures."""
    cfg = CfgNode()
    cfg.VERSION = 2  # that of Detectron2's configs
    cfg.OUTPUT_DIR = "output"

    cfg.MODEL = _model_node("float32")
    cfg.MODEL.ARCHITECTURE = CfgNode(new_allowed=True)  # model_type and keys of its config
    cfg.TOKENIZER = CfgNode()
    cfg.TOKENIZER.NAME = ""  # a path or hub name; empty is that of the weights, or the teacher's
    cfg.TOKENIZER.VOCAB_SIZE = 0  # words of a byte-level one to train on the training set

    cfg.TEACHER = _model_node("auto")

    cfg.DATASET = CfgNode()
    cfg.DATASET.TRAIN = ""  # JSONL, or a name of llm.instructions.GENERATED
    cfg.DATASET.VALID = ""  # likewise, for TRAINING.EVAL_STRATEGY
    cfg.DATASET.TRAIN_SIZE = 0  # the first so many examples of it; 0 is all
    cfg.DATASET.PROMPT = next(iter(PROMPTS))
    cfg.DATASET.MAX_LENGTH = 512  # tokens of prompt and answer

    cfg.TRAINING = _training_node()
    cfg.DISTILL = distill_node({name: d.defaults for name, d in DISTILLERS.items()})
    cfg.DISTILL.CE_WEIGHT = 1.0  # of the cross-entropy with the answers
    cfg.DISTILL.CHUNK_SIZE = 0  # tokens whose logits are there at a time; 0 is all

    options = {key.upper(): value for key, value in scalar_defaults(generate).items()}
    cfg.TEST = CfgNode({"SETS": (), **options})  # NAME=PATH, a path as DATASET.TRAIN
    cfg.TEST.SEEDS = ()  # of sampling, one run for each; empty is greedy generation
    return cfg


def load_config(path: str, options: list[str] = ()) -> CfgNode:
    """The defaults, then a file, then KEY VALUE pairs.

    Raises:
        UserError: a file, key or value is wrong.
    """
    cfg = language_config()
    merge_config(cfg, path, options)
    _check(cfg)
    return cfg


def training_arguments(cfg: CfgNode, **overrides: Any) -> TrainingArguments:
    """Transformers' arguments of a run.

    Raises:
        UserError: two of them do not go together.
    """
    values = {key.lower(): value for key, value in cfg.TRAINING.items()}
    values |= {name: dict(values[name]) or None for name in OPEN_IN_TRAINING}
    try:
        return TrainingArguments(output_dir=cfg.OUTPUT_DIR, **{**values, **overrides})
    except ValueError as error:
        raise UserError(f"TRAINING: {error}") from error


def _model_node(dtype: str) -> CfgNode:
    node = CfgNode()
    node.WEIGHTS = ""  # a path or hub name of an AutoModelForCausalLM
    node.CONFIG_FILE = ""  # in their place: of a run that leaves them, and is trained if need be
    node.DTYPE = dtype  # any of DTYPES
    return node


def _training_node() -> CfgNode:
    """TrainingArguments' fields in upper case; a typo in one fails as that of any key."""
    node = CfgNode()
    for field in dataclasses.fields(TrainingArguments):
        if field.init and field.name not in NOT_IN_TRAINING:
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory()
            if field.name in OPEN_IN_TRAINING:
                default = CfgNode(new_allowed=True)
            node[field.name.upper()] = default.value if isinstance(default, Enum) else default
    return node


def _check(cfg: CfgNode) -> None:
    for key, value, least in [
        ("DATASET.TRAIN_SIZE", cfg.DATASET.TRAIN_SIZE, 0),
        ("DATASET.MAX_LENGTH", cfg.DATASET.MAX_LENGTH, 2),
        ("DISTILL.CHUNK_SIZE", cfg.DISTILL.CHUNK_SIZE, 0),
        ("TEST.BATCH_SIZE", cfg.TEST.BATCH_SIZE, 1),
        ("TEST.MAX_NEW_TOKENS", cfg.TEST.MAX_NEW_TOKENS, 1),
    ]:
        if value < least:
            raise UserError(f"{key} must be {least} or more, not {value}.")
    for key, value, choices in [
        ("DATASET.PROMPT", cfg.DATASET.PROMPT, PROMPTS),
        ("MODEL.DTYPE", cfg.MODEL.DTYPE, DTYPES),
        ("TEACHER.DTYPE", cfg.TEACHER.DTYPE, DTYPES),
    ]:
        if value not in choices:
            raise UserError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")
    _check_options(cfg.DISTILL)
    if not cfg.DISTILL.EA.TEMPERATURE > 0:
        raise UserError(
            f"DISTILL.EA.TEMPERATURE must be above 0, not {cfg.DISTILL.EA.TEMPERATURE}."
        )
    if cfg.DISTILL.CHUNK_SIZE and cfg.DISTILL.EA.ENABLED and cfg.DISTILL.EA.MODE == "matched":
        raise UserError(
            "DISTILL.EA.MODE matched needs the tokens of a batch at once: set CHUNK_SIZE 0."
        )


def _check_options(node: CfgNode) -> None:
    """Let the divergences say now, and not after a teacher's training, what they refuse."""
    token = torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
    for name, options in method_settings(node, DISTILLERS)["methods"].items():
        del options["weight"]  # the factor
        try:
            DISTILLERS[name].loss(*token, **options)
        except ValueError as error:
            raise UserError(f"DISTILL.{name}: {error}.") from error
