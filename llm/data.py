"""Instruction data: JSONL files of instruction, input and output, tokenized with labels."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from eakd_det.losses.divergence import IGNORED
from eakd_det.utils.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Instruction:
    """A task and its answers.

    Attributes:
        instruction: the task.
        context: "input" of the file, or empty.
        answers: at least one; training uses the first, evaluation the best match.
    """

    instruction: str
    context: str
    answers: tuple[str, ...]


def read_instructions(path: str | Path) -> list[Instruction]:
    """Read a JSONL file of "instruction", "output" (a string or a list) and optional "input".

    Raises:
        UserError: there is no such file, or a line is malformed; the message has its number.
    """
    if not Path(path).is_file():
        raise UserError(
            f"There is no file {str(path)!r} of instructions (JSONL; see docs/datasets.md)."
        )
    # Not splitlines, which also splits at U+2028 and U+0085 within a string.
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    examples = [
        _read_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not examples:
        raise UserError(f"{path} has no examples.")
    return examples


def _read_line(line: str, place: str) -> Instruction:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place} is not JSON: {error}.") from error
    if not isinstance(record, dict) or not {"instruction", "output"} <= record.keys():
        raise UserError(f'{place} must have "instruction" and "output" (and may have "input").')
    output = record["output"]
    answers = tuple(output) if isinstance(output, list) else (output,)
    texts = (record["instruction"], record.get("input") or "", *answers)
    if not answers or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"{place}: instruction and input must be strings, output a string or a list of strings."
        )
    return Instruction(texts[0], texts[1], answers)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids of a prompt, the same for training and generation."""
    return tokenizer(prompt)["input_ids"]


def encode(
    examples: Sequence[Instruction],
    tokenizer: PreTrainedTokenizerBase,
    prompt: Callable[..., str],
    max_length: int,
) -> list[dict[str, list[int]]]:
    """Tokenize prompt, answer and end-of-text token; labels are IGNORED on the prompt.

    An answer that is too long is truncated and then has no end-of-text token; an example whose
    prompt leaves no room for an answer is left out. A warning counts both.

    Returns:
        One dict per example, "input_ids" and "labels" of equal length, at most `max_length`.

    Raises:
        UserError: no example is left, or the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise UserError("The tokenizer has no end-of-text token (eos_token).")
    rows, num_truncated = [], 0
    for example in examples:
        before = encode_prompt(tokenizer, prompt(example.instruction, example.context))
        answer = tokenizer(example.answers[0], add_special_tokens=False)["input_ids"]
        answer = [*answer, tokenizer.eos_token_id]
        if not before or len(before) >= max_length:
            continue
        kept = answer[: max_length - len(before)]
        num_truncated += len(kept) < len(answer)
        rows.append({"input_ids": before + kept, "labels": [IGNORED] * len(before) + kept})
    num_left_out = len(examples) - len(rows)
    if num_truncated or num_left_out:
        logger.warning(
            "Of %d examples, %d have an answer truncated to DATASET.MAX_LENGTH %d tokens, and %d "
            "were left out because their prompt alone is that long.",
            *(len(examples), num_truncated, max_length, num_left_out),
        )
    if not rows:
        raise UserError(f"Every prompt has {max_length} tokens or more: raise DATASET.MAX_LENGTH.")
    return rows


class PadRight:
    """Collates rows of different lengths; padding has no label and no attention."""

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return "input_ids", "attention_mask" and "labels", (B, L), L that of the longest row."""
        length = max(len(row["input_ids"]) for row in rows)
        batch = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in rows:
            ids, labels = row["input_ids"], row["labels"]
            missing = length - len(ids)
            batch["input_ids"].append(ids + [self.pad_id] * missing)
            batch["attention_mask"].append([1] * len(ids) + [0] * missing)
            batch["labels"].append(labels + [IGNORED] * missing)
        return {key: torch.tensor(values) for key, values in batch.items()}
