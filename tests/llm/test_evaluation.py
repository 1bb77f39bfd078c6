import json
import re
from pathlib import Path

import pytest
import torch

from eakd_det.utils.errors import UserError
from llm.evaluation import evaluate, named_sets
from llm.generation import generate
from llm.rouge import exact_match, rouge_l
from llm.tables import table

from .conftest import LINES, make_gpt2, write_jsonl


def test_rouge_l():
    assert rouge_l(["the cat sat"], [["the cat sat"]]) == 100
    assert rouge_l(["the cat sat"], [["a dog", "the cats sit"]]) == pytest.approx(200 / 3)
    # Of 3 and 4 words the longest common subsequence has 2: F of 2/3 and 2/4.
    expected = 100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    assert rouge_l(["a b c"], [["b x c y"]]) == pytest.approx(expected)
    assert rouge_l(["a", "b"], [["a"], ["c"]]) == 50


def test_exact_match():
    assert exact_match([" 3\n", "4", "b"], [["3"], ["5"], ["a", "b"]]) == pytest.approx(200 / 3)


@pytest.fixture
def model(tokenizer):
    return make_gpt2(tokenizer, 3).eval()


PROMPTS = ["Say three.\n", "Repeat this.\none two three four\n", "a\n"]


def test_greedy_answers_do_not_depend_on_the_batch(model, tokenizer):
    alone = [
        generate(model, tokenizer, [p], 40, None, batch_size=1, max_new_tokens=6)[0]
        for p in PROMPTS
    ]
    together = generate(model, tokenizer, PROMPTS, 40, None, batch_size=3, max_new_tokens=6)
    assert together == alone
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first = model(ids).logits[0, -1].argmax()
    assert alone[0].startswith(tokenizer.decode(first, skip_special_tokens=True))


def test_sampling_follows_its_seed(model, tokenizer):
    def sample(seed, **options):
        return generate(model, tokenizer, PROMPTS, 40, seed, max_new_tokens=8, **options)

    assert sample(1) == sample(1) != sample(2)
    greedy = generate(model, tokenizer, PROMPTS, 40, None, max_new_tokens=8)
    assert sample(1) != greedy
    for option in [{"top_k": 1}, {"temperature": 1e-3}, {"top_p": 1e-6}]:
        assert sample(1, **option) == greedy


def test_long_prompts_lose_their_beginning(model, tokenizer, caplog):
    short = generate(model, tokenizer, ["b a\n"], 40, None, max_new_tokens=6)
    limit = len(tokenizer("b a\n")["input_ids"])
    cut = generate(model, tokenizer, ["zzz b a\n"], limit, None, max_new_tokens=6)
    assert cut == short
    assert f"1 of 1 prompts were truncated to {limit} tokens" in caplog.text


@pytest.fixture
def run(cfg, model, tokenizer, tmp_path):
    model.save_pretrained(cfg.OUTPUT_DIR)
    tokenizer.save_pretrained(cfg.OUTPUT_DIR)
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", LINES) for name in ("a", "b")]
    cfg.TEST.SETS = (f"Dolly={paths[0]}", f"Vicuna={paths[1]}")
    cfg.TEST.MAX_NEW_TOKENS, cfg.DATASET.MAX_LENGTH = 4, 60
    return cfg


def test_evaluation(run):
    result = evaluate(run)
    assert list(result["scores"]) == ["Dolly", "Vicuna"]
    assert result["settings"] == run.TEST.dump()
    assert len(result["scores"]["Dolly"]["rougeL"]) == 1
    saved = json.loads((Path(run.OUTPUT_DIR) / "rouge.json").read_text())
    assert saved["scores"] == result["scores"] and len(saved["answers"]["Dolly"]) == len(LINES)
    run.TEST.SEEDS = (10, 20)
    assert len(evaluate(run)["scores"]["Dolly"]["rougeL"]) == 2
    (Path(run.OUTPUT_DIR) / "rouge.json").unlink()
    other = evaluate(run, run.MODEL.WEIGHTS)
    assert other["scores"].keys() == result["scores"].keys()
    assert not (Path(run.OUTPUT_DIR) / "rouge.json").exists()


def test_refused(run):
    run.TEST.SETS = ("Dolly",)
    with pytest.raises(ValueError, match="TEST.SETS: 'Dolly' must be NAME=PATH"):
        named_sets(run)
    run.TEST.SETS = ()
    with pytest.raises(ValueError, match="TEST.SETS is empty"):
        named_sets(run)
    run.OUTPUT_DIR += "/elsewhere"
    with pytest.raises(ValueError, match="has no model; train it first"):
        evaluate(run)


def test_answers_fit_into_the_positions_of_the_model(run, caplog):
    run.TEST.SETS = run.TEST.SETS[:1]
    run.DATASET.MAX_LENGTH, run.TEST.MAX_NEW_TOKENS = 512, 60  # of 64
    evaluate(run)
    assert "prompts were truncated to 4 tokens" in caplog.text
    run.TEST.MAX_NEW_TOKENS = 64
    with pytest.raises(UserError, match="leaves no room for a prompt: the model has 64 positions"):
        evaluate(run)


def scores(**sets):
    metrics = {"rougeL": None, "exact": [0.0]}
    return {"scores": {name: {**metrics, "rougeL": values} for name, values in sets.items()}}


def test_table_of_the_five_sets_has_the_published_figures():
    sets = {name: [10.0, 20.0] for name in ("Dolly", "SInst", "Vicuna", "S-NI", "UnNI")}
    sets["UnNI"] = [20.0]
    text = table({"ours": scores(**sets)})
    assert re.search(r"\| ours +\| +15.00 +\| +15.00 +\| .* 20.00 +\| +16.00 ", text)
    published = re.search(r"\| SRKLD, published: .*A3 +\|(.*)", text)[1]
    assert published.replace(" ", "") == "24.48|10.35|14.88|16.53|19.68|17.19|"
    assert "published" not in table({"ours": scores(mine=[10.0])})
    some = re.search(r"\| EA-KD, published: .*A3 +\|(.*)", table({"ours": scores(Dolly=[1.0])}))[1]
    assert some.replace(" ", "") == "24.95||"
