"""Tokenizers: training a small one, and whether two networks speak of the same words."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from eakd_det.utils.errors import UserError

END = "<|endoftext|>"  # as in GPT-2
# Texts that tokenizers of the same words but other rules split differently.
PROBES = ("Hello world!", "  two  spaces,\n\nlines\tand 1234567", "naïve café — 日本語 🙂")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` words that splits numbers into digits.

    Raises:
        UserError: the size is too small for all bytes and the end.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise UserError(
            f"TOKENIZER.VOCAB_SIZE must be above {len(alphabet)}: each byte has a word."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END
    )


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding's token; that of the end where it has none, as GPT-2's."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def common_width(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    student_width: int,
    teacher_width: int,
) -> int:
    """Words that both networks have, V: the smaller of the heads' widths, which may be padded.

    Args:
        student_width, teacher_width: rows of the output heads.

    Raises:
        UserError: the tokenizers differ, or have words beyond that width.
    """
    width = min(student_width, teacher_width)
    if len(student) > width:
        raise UserError(
            f"The tokenizer has {len(student)} words, but the heads of student and teacher have "
            f"{student_width} and {teacher_width}: some words would have no logit."
        )
    words = [{i: word for word, i in t.get_vocab().items()} for t in (student, teacher)]
    for index in range(width):
        of_student, of_teacher = (table.get(index) for table in words)
        if of_student != of_teacher:
            raise UserError(
                "Student and teacher have different tokenizers, and a divergence compares them "
                f"word by word: word {index} is {of_student!r} for the student and "
                f"{of_teacher!r} for the teacher. Choose a teacher of the student's family."
            )
    for text in PROBES:
        if student(text)["input_ids"] != teacher(text)["input_ids"]:
            raise UserError(
                "The tokenizers of student and teacher have the same words but split "
                f"{text!r} differently. Choose a teacher of the student's family."
            )
    return width
