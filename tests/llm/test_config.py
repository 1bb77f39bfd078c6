"""Config keys of language models, and the YAML files of configs/LLM."""

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainingArguments

from llm.config import EXCLUDED_FIELDS, language_config, load_config, training_arguments
from llm.distillers import DISTILLERS
from llm.models import build_student

ROOT = Path(__file__).parents[2]
# Configs of runs; the others are bases.
FILES = sorted((ROOT / "configs" / "LLM").rglob("*.yaml"))
FILES = [path for path in FILES if path.stem not in ("Base", "Distilled")]


def test_defaults_are_the_signatures():
    cfg = language_config()
    assert cfg.DISTILL.SKLD.ALPHA == 0.1 and cfg.DISTILL.JSD.BETA == 0.5
    assert cfg.DISTILL.EA.TEMPERATURE == 3.0
    assert set(cfg.DISTILL) - {"METHODS", "EA", "CE_WEIGHT", "CHUNK_SIZE", "COMPILE"} == set(
        DISTILLERS
    )
    names = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert {name.upper() for name in names - set(EXCLUDED_FIELDS)} == set(cfg.TRAINING)


def test_arguments_reach_transformers(tmp_path):
    cfg = language_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.GRADIENT_ACCUMULATION_STEPS = 0.5, 3
    args = training_arguments(cfg)
    assert (args.learning_rate, args.gradient_accumulation_steps) == (0.5, 3)
    assert args.output_dir == str(tmp_path)
    assert args.lr_scheduler_kwargs is None
    (tmp_path / "own.yaml").write_text(
        "TRAINING: {LR_SCHEDULER_TYPE: cosine_with_min_lr, LR_SCHEDULER_KWARGS: {min_lr: 0.25}}"
    )
    args = training_arguments(load_config(str(tmp_path / "own.yaml")))
    assert args.lr_scheduler_kwargs == {"min_lr": 0.25}
    cfg.TRAINING.EVAL_STRATEGY, cfg.TRAINING.LOAD_BEST_MODEL_AT_END = "no", True
    with pytest.raises(ValueError, match="TRAINING: "):
        training_arguments(cfg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TRAINING.LEARNIN_RATE", "1"], "did you mean TRAINING.LEARNING_RATE"),
        (["DISTILL.METHODS", "('KLD',)"], "DISTILL.METHODS: 'KLD' is unknown; choose from KD"),
        (["DISTILL.METHODS", "('JSD',)", "DISTILL.JSD.BETA", "1.0"], "DISTILL.JSD: beta must be"),
        (["DATASET.PROMPT", "long"], "choose from dolly, short"),
        (
            ["MODEL.DTYPE", "float33"],
            "MODEL.DTYPE: 'float33' is unknown; choose from auto",
        ),
        (["DISTILL.EA.MODE", "half"], "choose from full, teacher, matched, normalized"),
        (["DISTILL.EA.BACKGROUND", "ignored"], "DISTILL.EA.BACKGROUND"),
        (["DISTILL.EA.TEMPERATURE", "0"], "EA.TEMPERATURE must be above 0"),
        (["DISTILL.CHUNK_SIZE", "-1"], "CHUNK_SIZE must be 0 or more"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_config(str(ROOT / "configs" / "LLM" / "KD.yaml"), options)


@pytest.mark.parametrize("mode", ["matched", "normalized"])
def test_means_over_a_step_and_chunks_are_refused(mode):
    options = ["DISTILL.EA.MODE", mode, "DISTILL.EA.ENABLED", "True"]
    with pytest.raises(ValueError, match=f"MODE {mode} needs .* set DISTILL.CHUNK_SIZE 0"):
        load_config(str(ROOT / "configs" / "LLM" / "KD.yaml"), options)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_loads(path):
    cfg = load_config(str(path))
    assert Path(cfg.OUTPUT_DIR).name == path.stem
    assert cfg.DISTILL.EA.ENABLED == path.stem.startswith("EA-")
    method, _, mode = path.stem.removeprefix("EA-").partition("-")
    assert cfg.DISTILL.EA.MODE == (mode or "full")
    expected = () if method in ("Start", "Student", "Teacher") else (method,)
    assert tuple(cfg.DISTILL.METHODS) == expected
    assert bool(cfg.TEACHER.CONFIG_FILE) == bool(expected)
    models = bool(cfg.MODEL.WEIGHTS), bool(cfg.MODEL.CONFIG_FILE), bool(cfg.MODEL.ARCHITECTURE)
    assert sum(models) == 1 and (models[1] or not expected)
    assert len(cfg.TEST.SETS) == 5


def test_architecture(tokenizer):
    cfg = language_config()
    for key, value in {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2}.items():
        cfg.MODEL.ARCHITECTURE[key] = value
    model = build_student(cfg.MODEL, "", tokenizer)
    assert model.config.vocab_size == len(tokenizer) and model.config.n_layer == 1
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.dtype == torch.float32
    cfg.MODEL.DTYPE = "bfloat16"
    assert build_student(cfg.MODEL, "", tokenizer).dtype == torch.bfloat16
    assert isinstance(model, type(AutoModelForCausalLM.from_config(model.config)))
    cfg.MODEL.ARCHITECTURE["n_head"] = 3
    with pytest.raises(ValueError, match="MODEL.ARCHITECTURE: .* divisible by num_heads"):
        build_student(cfg.MODEL, "", tokenizer)
    cfg.MODEL.ARCHITECTURE["n_layers"] = 2
    with pytest.raises(ValueError, match="gpt2 has no n_layers"):
        build_student(cfg.MODEL, "", tokenizer)
    cfg.MODEL.ARCHITECTURE["model_type"] = "gpt22"
    with pytest.raises(ValueError, match="model_type: transformers has no 'gpt22'"):
        build_student(cfg.MODEL, "", tokenizer)
