"""Models that cannot be distilled are refused, each with one line."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from eakd_det.utils.errors import UserError
from llm.evaluation import evaluate
from llm.models import check_causal, load_model, load_tokenizer
from llm.training import fit

from .conftest import make_gpt2, save

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
BERT = {**SMALL, "intermediate_size": 16, "max_position_embeddings": 64}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", ["MODEL", "TEACHER"])
def test_weights_that_are_not_finite(cfg, tokenizer, tmp_path, key, value):
    model = make_gpt2(tokenizer, 1)
    with torch.no_grad():
        model.transformer.ln_f.bias[3] = value
    cfg[key].WEIGHTS = save(model, tokenizer, tmp_path / "bad")
    message = rf"{key}\.WEIGHTS: '.*bad' has NaN or infinite .* 1 of .* transformer\.ln_f\.bias"
    with pytest.raises(UserError, match=message):
        fit(cfg)
    assert not Path(cfg.OUTPUT_DIR).exists()


@pytest.mark.parametrize("key", ["MODEL", "TEACHER"])
def test_models_that_attend_to_future_tokens(cfg, tokenizer, tmp_path, key):
    torch.manual_seed(0)
    model = BertLMHeadModel(BertConfig(vocab_size=len(tokenizer), **BERT))
    cfg[key].WEIGHTS = save(model, tokenizer, tmp_path / "bert")
    with pytest.raises(UserError, match=f"^{key}: the model attends to future tokens"):
        fit(cfg)
    cfg.TEST.SETS = (f"own={cfg.DATASET.TRAIN}",)
    cfg.TEST.MAX_NEW_TOKENS, cfg.DATASET.MAX_LENGTH = 4, 60
    with pytest.raises(UserError, match="^--model: the model attends to future tokens"):
        evaluate(cfg, cfg[key].WEIGHTS)


def test_causal_models_are_accepted(tokenizer):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), is_decoder=True, **BERT)
    for model in (BertLMHeadModel(config), make_gpt2(tokenizer, 1).to(torch.bfloat16)):
        check_causal(model, torch.arange(12), "MODEL")


OTHERS = {
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    ),
    "bart": lambda: BartForConditionalGeneration(
        BartConfig(vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1)
    ),
    "vit": lambda: ViTForImageClassification(ViTConfig(**SMALL, intermediate_size=16)),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("t5", "an encoder-decoder"), ("bart", "an encoder-decoder"), ("vit", "not a language model")],
)
def test_other_kinds_of_models(cfg, tokenizer, tmp_path, name, kind):
    cfg.TEACHER.WEIGHTS = save(OTHERS[name](), tokenizer, tmp_path / name)
    with pytest.raises(UserError) as error:
        fit(cfg)
    assert str(error.value) == (
        f"TEACHER.WEIGHTS: {name} is {kind}; name a causal language model, such as GPT-2 or Llama."
    )
    cfg.MODEL.WEIGHTS, cfg.MODEL.ARCHITECTURE = "", CfgNode({"model_type": name})
    cfg.TOKENIZER.NAME = cfg.TEACHER.WEIGHTS
    with pytest.raises(UserError, match=f"^MODEL.ARCHITECTURE: {name} is {kind}; name a causal"):
        fit(cfg)


def lora(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (folder / "config.json").unlink()


def quantized(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps(config))


def own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('this code was run')")


def gguf(folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    (folder / "config.json").unlink()


def cut_off(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:1000])


def pointer(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")


FOLDERS = [
    (lora, "holds an adapter .* merge it into its base model"),
    (quantized, "cannot be loaded: .* requires bitsandbytes: `pip install"),
    (own_code, "cannot be loaded: .* contains custom code"),
    (gguf, "has no config.json; name a folder written by a model's save_pretrained"),
    (cut_off, "cannot be loaded: a file of its weights is damaged or incomplete"),
    (pointer, "cannot be loaded: a file of its weights is damaged or incomplete"),
]


@pytest.mark.parametrize(("spoil", "message"), FOLDERS, ids=lambda x: getattr(x, "__name__", ""))
def test_invalid_folders_are_refused(tokenizer, tmp_path, monkeypatch, spoil, message):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("there is a prompt"))
    folder = Path(save(make_gpt2(tokenizer, 1), tokenizer, tmp_path / "other"))
    spoil(folder)
    with pytest.raises(UserError, match=rf"^TEACHER\.WEIGHTS: '.*other' {message}") as error:
        load_model(str(folder), "auto", "TEACHER.WEIGHTS")
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_without_a_tokenizer(cfg, tokenizer, tmp_path):
    folder = tmp_path / "adapter"
    make_gpt2(tokenizer, 1).save_pretrained(folder)
    lora(folder)
    cfg.MODEL.WEIGHTS = str(folder)
    with pytest.raises(UserError, match=r"^MODEL\.WEIGHTS: '.*adapter' holds an adapter"):
        fit(cfg)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="^TOKENIZER.NAME: no tokenizer in '.*empty'") as error:
        load_tokenizer(str(tmp_path / "empty"), "TOKENIZER.NAME")
    assert len(str(error.value).splitlines()) == 1
