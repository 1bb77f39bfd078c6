"""Generation of answers by a language model."""

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
    """Generate an answer to each prompt, up to the end-of-text token.

    Args:
        max_prompt: tokens; longer prompts lose their beginning, with a warning.
        seed: seed of sampling; None: greedy decoding.
        batch_size: prompts per batch; prompts of similar length are batched.
        temperature, top_p, top_k: sampling parameters; top_k 0: all tokens.

    Returns:
        One text per prompt, without the prompt and special tokens.
    """
    model.eval()
    options = {"do_sample": False}
    if seed is not None:
        set_seed(seed)
        options = dict(do_sample=True, temperature=temperature, top_p=top_p, top_k=top_k)
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    num_truncated = sum(len(tokens) > max_prompt for tokens in encoded)
    if num_truncated:
        logger.warning(
            "%d of %d prompts were truncated to %d tokens.",
            *(num_truncated, len(encoded), max_prompt),
        )
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
    """Return token ids and attention mask, (B, L), of rows that are continued on the right."""
    length = max(map(len, rows))
    ids = [[pad] * (length - len(row)) + row for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
