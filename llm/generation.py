"""Answers of a language model to instructions."""

import logging
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from .data import encode_prompt
from .vocabulary import pad_id

logger = logging.getLogger(__name__)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_prompt: int,
    seed: int | None,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> list[str]:
    """What the model writes after each prompt, up to its end.

    Args:
        max_prompt: tokens; of a longer prompt the beginning is cut off, which is told in the log.
        seed: of sampling; None takes the likeliest word each time (greedy).
        batch_size: prompts at a time; those of similar length go together.
        temperature, top_p, top_k: of sampling; top_k 0 is all words.

    Returns:
        One text a prompt, without the prompt and special tokens.
    """
    model.eval()
    options = {"do_sample": False}
    if seed is not None:
        set_seed(seed)
        options = dict(do_sample=True, temperature=temperature, top_p=top_p, top_k=top_k)
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    num_cut = sum(len(tokens) > max_prompt for tokens in encoded)
    if num_cut:
        logger.warning("%d of %d prompts were cut to %d tokens.", num_cut, len(encoded), max_prompt)
    encoded = [tokens[-max_prompt:] for tokens in encoded]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        ids, mask = _pad_left([encoded[i] for i in chosen], pad_id(tokenizer))
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad_id(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            **options,
        )
        texts = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text
    return answers


def _pad_left(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (B, L): a text is continued at its right end."""
    length = max(map(len, rows))
    ids = [[pad] * (length - len(row)) + row for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
