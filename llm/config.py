"""Configuration keys of language models: a small root of their own, in Detectron2's style."""

import dataclasses
from enum import Enum
from typing import Any

import torch
from detectron2.config import CfgNode
from transformers import TrainingArguments

from eakd_det.config.defaults import distill_node
from eakd_det.config.merge import merge_config
from eakd_det.distillers import EA_MODES, method_settings, scalar_defaults
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import HALVES

from .distillers import DISTILLERS
from .generation import generate
from .prompts import PROMPTS

DTYPES = ("auto", "float32", *HALVES)  # of weights in memory; auto: as saved
# Fields of TrainingArguments that other keys or the tools' flags set.
EXCLUDED_FIELDS = ("output_dir", "resume_from_checkpoint", "do_train", "do_eval", "do_predict")
# Fields of TrainingArguments that are dicts of any keys; other dict fields may name a JSON file.
DICT_FIELDS = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs")


def language_config() -> CfgNode:
    """Return the default config; defaults of losses and training come from signatures."""
    cfg = CfgNode()
    cfg.VERSION = 2  # as in Detectron2's configs
    cfg.OUTPUT_DIR = "output"

    cfg.MODEL = _model_node("float32")
    cfg.MODEL.ARCHITECTURE = CfgNode(new_allowed=True)  # model_type and keys of its config
    cfg.TOKENIZER = CfgNode()
    cfg.TOKENIZER.NAME = ""  # a path or hub name; empty: that of the weights, or the teacher's
    cfg.TOKENIZER.VOCAB_SIZE = 0  # tokens of a byte-level one to train on the training set

    cfg.TEACHER = _model_node("auto")

    cfg.DATASET = CfgNode()
    cfg.DATASET.TRAIN = ""  # a JSONL file, or a name of llm.instructions.GENERATED
    cfg.DATASET.VALID = ""  # likewise, for TRAINING.EVAL_STRATEGY
    cfg.DATASET.TRAIN_SIZE = 0  # number of training examples, from the first; 0: all
    cfg.DATASET.PROMPT = next(iter(PROMPTS))
    cfg.DATASET.MAX_LENGTH = 512  # tokens of prompt and answer together

    cfg.TRAINING = _training_node()
    cfg.DISTILL = distill_node({name: d.defaults for name, d in DISTILLERS.items()})
    cfg.DISTILL.CE_WEIGHT = 1.0  # weight of the cross-entropy with the answers
    cfg.DISTILL.CHUNK_SIZE = 0  # tokens whose logits are computed at a time; 0: all
    cfg.DISTILL.COMPILE = True  # on a GPU: torch.compile the loss of a chunk

    options = {key.upper(): value for key, value in scalar_defaults(generate).items()}
    cfg.TEST = CfgNode({"SETS": (), **options})  # NAME=PATH, with a path as DATASET.TRAIN
    cfg.TEST.SEEDS = ()  # of sampling, one evaluation for each; empty: greedy decoding
    return cfg


def load_config(path: str, options: list[str] = ()) -> CfgNode:
    """Return the default config, updated from a file and then from KEY VALUE pairs.

    Raises:
        UserError: a file, key or value is invalid.
    """
    cfg = language_config()
    merge_config(cfg, path, options)
    _check(cfg)
    return cfg


def device_options(cfg: CfgNode) -> list[str]:
    """Return the KEY VALUE pairs of a run's device and mixed precision; empty without either."""
    training = cfg.TRAINING
    keys = ["USE_CPU"] * training.USE_CPU + ["BF16", "FP16"] * (training.BF16 or training.FP16)
    return [text for key in keys for text in (f"TRAINING.{key}", str(training[key]))]


def training_arguments(cfg: CfgNode, **overrides: Any) -> TrainingArguments:
    """Build the TrainingArguments of a run.

    Raises:
        UserError: arguments are invalid or contradict each other.
    """
    values = {key.lower(): value for key, value in cfg.TRAINING.items()}
    values |= {name: dict(values[name]) or None for name in DICT_FIELDS}
    try:
        return TrainingArguments(output_dir=cfg.OUTPUT_DIR, **{**values, **overrides})
    except ValueError as error:
        raise UserError(f"TRAINING: {error}") from error


def _model_node(dtype: str) -> CfgNode:
    node = CfgNode()
    node.WEIGHTS = ""  # a path or hub name of an AutoModelForCausalLM
    node.CONFIG_FILE = ""  # instead: config of the run that writes them, trained if needed
    node.DTYPE = dtype  # one of DTYPES
    return node


def _training_node() -> CfgNode:
    """Return TrainingArguments' fields in upper case, so that misspelled ones are refused."""
    node = CfgNode()
    for field in dataclasses.fields(TrainingArguments):
        if field.init and field.name not in EXCLUDED_FIELDS:
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory()
            if field.name in DICT_FIELDS:
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
    mode = cfg.DISTILL.EA.MODE
    if not cfg.DISTILL.EA.TEMPERATURE > 0:
        raise UserError(
            f"DISTILL.EA.TEMPERATURE must be above 0, not {cfg.DISTILL.EA.TEMPERATURE}."
        )
    if cfg.DISTILL.CHUNK_SIZE and cfg.DISTILL.EA.ENABLED and EA_MODES[mode].by_mean is not None:
        raise UserError(
            f"DISTILL.EA.MODE {mode} needs all tokens of a batch: set DISTILL.CHUNK_SIZE 0."
        )


def _check_options(node: CfgNode) -> None:
    """Refuse invalid options of the divergences before a teacher is trained."""
    token = torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long)
    for name, options in method_settings(node, DISTILLERS)["methods"].items():
        del options["weight"]  # factor of the loss; the divergence's `weight` are token weights
        try:
            DISTILLERS[name].loss(*token, **options)
        except ValueError as error:
            raise UserError(f"DISTILL.{name}: {error}.") from error
