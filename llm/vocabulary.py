"""Tokenizers: training a small one, and the common vocabulary of student and teacher."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from eakd_det.utils.errors import UserError

END = "<|endoftext|>"  # as in GPT-2
# Texts that tokenizers with the same vocabulary but other rules split differently.
PROBES = ("Hello world!", "  two  spaces,\n\nlines\tand 1234567", "naïve café — 日本語 🙂")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of `vocab_size` tokens that splits numbers into digits.

    Raises:
        UserError: the size is too small for all bytes and the end-of-text token.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise UserError(
            f"TOKENIZER.VOCAB_SIZE must be above {len(alphabet)}: each byte is a token."
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
    """Return the id of the padding token, or of the end-of-text token if there is none (GPT-2)."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def common_vocab_size(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    student_size: int,
    teacher_size: int,
) -> int:
    """Return the size V of the common vocabulary: the smaller head's, which may be padded.

    Args:
        student_size, teacher_size: rows of the output heads.

    Raises:
        UserError: the tokenizers differ, or have tokens beyond that size.
    """
    vocab_size = min(student_size, teacher_size)
    if len(student) > vocab_size:
        raise UserError(
            f"The tokenizer has {len(student)} tokens, but the heads of student and teacher have "
            f"{student_size} and {teacher_size}: some tokens would have no logit."
        )
    tables = [{i: token for token, i in t.get_vocab().items()} for t in (student, teacher)]
    for index in range(vocab_size):
        student_token, teacher_token = (table.get(index) for table in tables)
        if student_token != teacher_token:
            raise UserError(
                "Student and teacher have different tokenizers, but a divergence compares their "
                f"logits token by token: token {index} is {student_token!r} for the student and "
                f"{teacher_token!r} for the teacher. Choose a teacher of the student's family."
            )
    for text in PROBES:
        if student(text)["input_ids"] != teacher(text)["input_ids"]:
            raise UserError(
                "The tokenizers of student and teacher have the same vocabulary but split "
                f"{text!r} differently. Choose a teacher of the student's family."
            )
    return vocab_size
