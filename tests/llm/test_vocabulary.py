import json

import pytest
from transformers import PreTrainedTokenizerFast

from llm.vocabulary import PROBES, common_vocab_size, pad_id, train_tokenizer

from .conftest import LINES


def test_byte_level_tokenizer_round_trips_every_text(tokenizer):
    for text in PROBES:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("1234")["input_ids"]) == 4
    assert pad_id(tokenizer) == tokenizer.eos_token_id


def test_training_twice_gives_the_same(tokenizer):
    again = train_tokenizer([" ".join(line.values()) for line in LINES], 270)
    assert again.get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="VOCAB_SIZE must be above 256"):
        train_tokenizer(["a"], 100)


def test_padded_heads_are_cut_to_the_common_size(tokenizer):
    size = len(tokenizer)
    assert common_vocab_size(tokenizer, tokenizer, size, size) == size
    assert common_vocab_size(tokenizer, tokenizer, size + 5, size + 3) == size + 3
    with pytest.raises(ValueError, match=f"has {size} tokens, but the heads"):
        common_vocab_size(tokenizer, tokenizer, size, size - 1)


def test_another_tokenizer_is_refused(tokenizer):
    size = len(tokenizer)
    other = train_tokenizer(["quite other words of quite another text"] * 3, 270)
    with pytest.raises(
        ValueError, match=r"different tokenizers.* token \d+ is '.*' for the student"
    ):
        common_vocab_size(tokenizer, other, size, size)


def test_other_rules_on_the_same_vocabulary_are_refused(tokenizer):
    backend = _without_merges(tokenizer.backend_tokenizer)
    other = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    assert other.get_vocab() == tokenizer.get_vocab()
    with pytest.raises(ValueError, match="same vocabulary but split"):
        common_vocab_size(tokenizer, other, len(tokenizer), len(tokenizer))


def _without_merges(backend):
    record = json.loads(backend.to_str())
    record["model"]["merges"] = []
    return type(backend).from_str(json.dumps(record))
