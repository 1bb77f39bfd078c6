import json

import pytest
import torch

from llm.data import PadRight, encode, read_instructions
from llm.instructions import TASKS, generate_instructions, path_of
from llm.prompts import PROMPTS, dolly_prompt, short_prompt

from .conftest import LINES, write_jsonl


def test_dolly_prompt():
    assert dolly_prompt("Sort.", "b a") == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nSort.\n\nInput:\nb a\n\n### Response:\n"
    )
    assert "Input:" not in dolly_prompt("Sort.")


def test_reading(tmp_path):
    lines = [*LINES, {"instruction": "Any?", "input": None, "output": ["yes", "no"]}]
    examples = read_instructions(write_jsonl(tmp_path / "a.jsonl", lines))
    assert [e.instruction for e in examples] == [line["instruction"] for line in lines]
    assert examples[0].context == "pear apple" and examples[1].context == ""
    assert examples[0].answers == ("apple pear",) and examples[4].answers == ("yes", "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"instruction": "a"}\n', 'line 1 must have "instruction" and "output"'),
        ('{"instruction": "a", "output": "b"}\n\n{"a\n', "line 3 is not JSON"),
        ('{"instruction": "a", "output": 3}', "line 1: .* output a string"),
        ('{"instruction": "a", "output": []}', "line 1: .* output a string"),
        ("\n", "has no examples"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_instructions(tmp_path / "bad.jsonl")


def test_separators_within_a_text_and_a_byte_order_mark(tmp_path):
    """Only a line feed ends a line; JSON does not escape U+2028, U+2029 and U+0085."""
    text = "one\u2028two\u2029three\u0085four\x0cfive"
    record = {"instruction": text, "output": "yes"}
    line = json.dumps(record, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(f"\ufeff{line}\r\n{line}\n".encode())
    examples = read_instructions(tmp_path / "a.jsonl")
    assert [example.instruction for example in examples] == [text, text]


def test_missing_file():
    with pytest.raises(ValueError, match="no file 'nowhere.jsonl'"):
        read_instructions("nowhere.jsonl")


def test_labels_are_the_answer_and_its_end(tokenizer, tmp_path, caplog):
    examples = read_instructions(write_jsonl(tmp_path / "a.jsonl", LINES))
    rows = encode(examples, tokenizer, short_prompt, 64)
    for row, example in zip(rows, examples, strict=True):
        prompt = short_prompt(example.instruction, example.context)
        labelled = [token for token in row["labels"] if token != -100]
        assert labelled[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(labelled[:-1]) == example.answers[0]
        assert tokenizer.decode(row["input_ids"][:-1]) == prompt + example.answers[0]
        assert row["labels"][0] == -100  # so shifting the labels loses none
    assert not caplog.records


def test_truncation_is_logged(tokenizer, tmp_path, caplog):
    examples = read_instructions(write_jsonl(tmp_path / "a.jsonl", LINES))
    lengths = [len(r["input_ids"]) for r in encode(examples, tokenizer, short_prompt, 64)]
    limit = max(lengths) - 1
    rows = encode(examples, tokenizer, short_prompt, limit)
    assert "Of 4 examples, 1 have an answer truncated" in caplog.text
    assert "and 0 were left out" in caplog.text
    cut = rows[lengths.index(max(lengths))]
    assert len(cut["input_ids"]) == len(cut["labels"]) == limit
    assert cut["labels"][-1] not in (-100, tokenizer.eos_token_id)

    caplog.clear()
    prompts = [len(tokenizer(short_prompt(e.instruction, e.context)).input_ids) for e in examples]
    rows = encode(examples, tokenizer, short_prompt, max(prompts))
    assert len(rows) == 4 - sum(length == max(prompts) for length in prompts)
    assert f"and {4 - len(rows)} were left out" in caplog.text
    with pytest.raises(ValueError, match="raise DATASET.MAX_LENGTH"):
        encode(examples, tokenizer, short_prompt, 2)


def test_the_prompt_option_changes_the_tokens(tokenizer, tmp_path):
    examples = read_instructions(write_jsonl(tmp_path / "a.jsonl", LINES))
    encoded = [encode(examples, tokenizer, prompt, 400) for prompt in PROMPTS.values()]
    assert encoded[0] != encoded[1]


def test_padding_has_no_label(tokenizer):
    end = tokenizer.eos_token_id
    rows = [{"input_ids": [5, 6, end], "labels": [-100, 6, end]}, {"input_ids": [7], "labels": [7]}]
    batch = PadRight(end)(rows)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, end], [7, end, end]]))
    assert torch.equal(batch["labels"], torch.tensor([[-100, 6, end], [7, -100, -100]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 0, 0]]))


CHECKS = {
    "sort": lambda e: e.answers[0].split() == sorted(e.context.split()),
    "copy": lambda e: e.answers[0] == e.context,
    "reverse": lambda e: e.answers[0].split() == e.context.split()[::-1],
    "add": lambda e: int(e.answers[0]) == sum(map(int, e.context.split())),
    "lookup": lambda e: len(e.answers[0].split()) == 1,
}

WORDINGS = {
    "sort": ("Sort these words.", "Put the words in alphabetical order."),
    "copy": ("Repeat these words.", "Copy the words."),
    "reverse": ("Reverse these words.", "Say the words backwards."),
    "add": ("What is the sum?", "Add these numbers."),
}


def test_generated_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    training = {(e.instruction, e.context) for e in read_instructions(path_of("tiny_train"))}
    inputs = {}
    for instruction, context in training:
        inputs.setdefault(instruction, set()).add(context)
    for task in TASKS:
        for e in read_instructions(path_of(f"tiny_{task}")):
            assert CHECKS[task](e)
            wordings = WORDINGS.get(task, (e.instruction,))  # of the same question
            assert e.instruction in wordings
            assert not any(e.context in inputs.get(wording, ()) for wording in wordings)
    before = (tmp_path / "tiny_instructions" / "tiny_train.jsonl").read_bytes()
    generate_instructions(tmp_path / "again")
    assert (tmp_path / "again" / "tiny_train.jsonl").read_bytes() == before
    assert path_of("my/own.jsonl") == "my/own.jsonl"
