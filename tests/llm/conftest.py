"""Tiny models, tokenizers and data on disk; nothing is downloaded."""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llm.config import language_config
from llm.vocabulary import train_tokenizer

LINES = [
    {"instruction": "Sort the words.", "input": "pear apple", "output": "apple pear"},
    {"instruction": "Say three.", "output": "3"},
    {"instruction": "Repeat this.", "input": "one two three four", "output": "one two three four"},
    {"instruction": "Say it.", "input": "sun", "output": "sun"},
]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer([" ".join(line.values()) for line in LINES], 270)


def make_gpt2(tokenizer, seed, width=16, vocab_size=None):
    """Build a GPT-2 of one layer, with clearly different logits."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocab_size or len(tokenizer),
        n_layer=1,
        n_head=2,
        n_embd=width,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPT2LMHeadModel(config)


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_jsonl(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def teacher_path(tokenizer, tmp_path):
    """Path of a wider teacher, whose vocabulary is padded by three tokens."""
    model = make_gpt2(tokenizer, 1, width=24, vocab_size=len(tokenizer) + 3)
    return save(model, tokenizer, tmp_path / "teacher")


@pytest.fixture
def cfg(tokenizer, teacher_path, tmp_path):
    """Config of one step of plain gradient descent on four examples, with EA-KD."""
    cfg = language_config()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.WEIGHTS = save(make_gpt2(tokenizer, 2), tokenizer, tmp_path / "student")
    cfg.TEACHER.WEIGHTS = teacher_path
    cfg.DATASET.TRAIN = write_jsonl(tmp_path / "train.jsonl", LINES)
    cfg.DATASET.PROMPT = "short"
    cfg.DISTILL.METHODS = ("KD",)
    cfg.DISTILL.EA.ENABLED = True
    for key, value in {
        "OPTIM": "sgd",
        "LEARNING_RATE": 1.0,
        "LR_SCHEDULER_TYPE": "constant",
        "MAX_GRAD_NORM": 0.0,
        "PER_DEVICE_TRAIN_BATCH_SIZE": 4,
        "MAX_STEPS": 1,
        "SAVE_STRATEGY": "no",
        "USE_CPU": True,
        "DISABLE_TQDM": True,
        "DATALOADER_PIN_MEMORY": False,
    }.items():
        cfg.TRAINING[key] = value
    return cfg
