"""The text before an answer."""

from collections.abc import Callable

_DOLLY_INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def dolly_prompt(instruction: str, context: str = "") -> str:
    """The format of Dolly; the answer follows the last line break."""
    text = f"{_DOLLY_INTRODUCTION}\n\n### Instruction:\n{instruction}\n\n"
    if context:
        text += f"Input:\n{context}\n\n"
    return text + "### Response:\n"


def short_prompt(instruction: str, context: str = "") -> str:
    """A line for each part, for small models that learn from these sets alone."""
    return f"{instruction}\n{context}\n" if context else f"{instruction}\n"


# DATASET.PROMPT -> function of instruction and input.
PROMPTS: dict[str, Callable[..., str]] = {"dolly": dolly_prompt, "short": short_prompt}
