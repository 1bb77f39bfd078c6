"""Formats of prompts."""

from collections.abc import Callable

_DOLLY_INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def dolly_prompt(instruction: str, context: str = "") -> str:
    """Return a prompt in the format of Dolly; the answer follows the last line break."""
    text = f"{_DOLLY_INTRODUCTION}\n\n### Instruction:\n{instruction}\n\n"
    if context:
        text += f"Input:\n{context}\n\n"
    return text + "### Response:\n"


def short_prompt(instruction: str, context: str = "") -> str:
    """Return a prompt of one line per part, for small models trained from scratch."""
    return f"{instruction}\n{context}\n" if context else f"{instruction}\n"


# DATASET.PROMPT -> function of instruction and input.
PROMPTS: dict[str, Callable[..., str]] = {"dolly": dolly_prompt, "short": short_prompt}
