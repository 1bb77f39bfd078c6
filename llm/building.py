"""Tokenizer, networks and trainer of a language model's run."""

import logging

from detectron2.config import CfgNode
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from eakd_det.utils.errors import UserError

from .config import load_config
from .data import Instruction, PadRight, encode
from .distillers import TokenObjective
from .liger import is_available, liger_loss
from .models import build_student, load_model, load_tokenizer, num_positions
from .prompts import PROMPTS
from .trainer import DistillationTrainer
from .vocabulary import common_vocab_size, pad_id, train_tokenizer
from .watched import WatchedTrainer

logger = logging.getLogger(__name__)


def build_tokenizer(cfg: CfgNode, examples: list[Instruction]) -> PreTrainedTokenizerBase:
    """Build the student's tokenizer: one named or trained, or that of its weights or its teacher.

    Raises:
        UserError: there is none, or the config names one and trains another.
    """
    name, size = cfg.TOKENIZER.NAME, cfg.TOKENIZER.VOCAB_SIZE
    if name and size:
        raise UserError("Give TOKENIZER.NAME or TOKENIZER.VOCAB_SIZE, not both.")
    if size:
        prompt = PROMPTS[cfg.DATASET.PROMPT]
        texts = (prompt(e.instruction, e.context) + e.answers[0] for e in examples)
        return train_tokenizer(texts, size)
    teacher = weights_of(cfg.TEACHER) if cfg.DISTILL.METHODS else ""
    sources = {
        "TOKENIZER.NAME": name,
        "MODEL.WEIGHTS": weights_of(cfg.MODEL),
        "TEACHER.WEIGHTS": teacher,
    }
    for key, source in sources.items():
        if source:
            return load_tokenizer(source, key)
    raise UserError("No tokenizer: set TOKENIZER.NAME, or TOKENIZER.VOCAB_SIZE to train one.")


def weights_of(node: CfgNode) -> str:
    """Return WEIGHTS of MODEL or TEACHER, or the model of its CONFIG_FILE's run, or nothing."""
    if node.WEIGHTS or not node.CONFIG_FILE:
        return node.WEIGHTS
    return load_config(node.CONFIG_FILE).OUTPUT_DIR


def build_trainer(
    cfg: CfgNode,
    args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Instruction],
    held_out: list[Instruction] | None = None,
) -> WatchedTrainer:
    """Build a WatchedTrainer, or with methods a DistillationTrainer, for the encoded examples."""
    prompt, length = PROMPTS[cfg.DATASET.PROMPT], cfg.DATASET.MAX_LENGTH
    if cfg.DATASET.TRAIN_SIZE:
        examples = examples[: cfg.DATASET.TRAIN_SIZE]
    options = {
        "model": build_student(cfg.MODEL, weights_of(cfg.MODEL), tokenizer),
        "args": args,
        "train_dataset": encode(examples, tokenizer, prompt, length),
        "eval_dataset": held_out and encode(held_out, tokenizer, prompt, length),
        "data_collator": PadRight(pad_id(tokenizer)),
    }
    rows = options["train_dataset"] + (options["eval_dataset"] or [])
    _check_length(rows, options["model"], "MODEL")
    if not cfg.DISTILL.METHODS:
        return WatchedTrainer(**options)
    name = weights_of(cfg.TEACHER)
    teacher = load_model(name, cfg.TEACHER.DTYPE, "TEACHER.WEIGHTS")
    _check_length(rows, teacher, "TEACHER")
    heads = [model.get_output_embeddings().weight for model in (options["model"], teacher)]
    uses_liger = cfg.DISTILL.CHUNK_SIZE and is_available(args.device)
    return DistillationTrainer(
        teacher=teacher,
        objective=TokenObjective(cfg.DISTILL),
        vocab_size=_common_vocab_size(tokenizer, name, [len(weight) for weight in heads]),
        chunk_size=cfg.DISTILL.CHUNK_SIZE,
        compiled=cfg.DISTILL.COMPILE and args.device.type == "cuda",
        fused_loss=liger_loss(cfg.DISTILL, {w.dtype for w in heads}) if uses_liger else None,
        **options,
    )


def _check_length(rows: list[dict[str, list[int]]], model: PreTrainedModel, key: str) -> None:
    longest, most = max(len(row["input_ids"]) for row in rows), num_positions(model)
    if most is not None and longest > most:
        raise UserError(
            f"{key} has {most} positions, and an example has {longest} tokens: set "
            f"DATASET.MAX_LENGTH to {most} or less."
        )


def _common_vocab_size(
    tokenizer: PreTrainedTokenizerBase, teacher_name: str, sizes: list[int]
) -> int:
    """Return the number of tokens that are compared; `sizes` are the heads' of both networks."""
    teacher_tokenizer = load_tokenizer(teacher_name, "TEACHER.WEIGHTS")
    vocab_size = common_vocab_size(tokenizer, teacher_tokenizer, *sizes)
    if len(set(sizes)) > 1:
        logger.info("Heads of %d and %d tokens are compared on the first %d.", *sizes, vocab_size)
    return vocab_size
