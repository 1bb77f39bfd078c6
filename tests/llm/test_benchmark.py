from argparse import Namespace

import pytest
import torch

from eakd_det.benchmark.bench import Bench
from llm.benchmark import VARIANTS, Sizes, loss_builders
from llm.benchmark_training import ModelSizes, measure_training

SIZES = Sizes(tokens=40, vocabulary=50, student=8, teacher=12)
OPTIONS = {"n_layer": 1, "n_head": 1, "vocab_size": 60, "n_positions": 16}
MODELS = ModelSizes({"n_embd": 8, **OPTIONS}, {"n_embd": 12, **OPTIONS}, 2, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_logits_and_chunks_have_the_same_loss(dtype):
    builders = loss_builders(SIZES, dtype, torch.device("cpu"))
    assert list(builders) == list(VARIANTS)  # Liger-Kernel needs a GPU
    values = {name: build()() for name, build in builders.items()}
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for name, value in values.items():
        kind = name.split("_", 1 if name.startswith("plain") else 2)[-1]
        torch.testing.assert_close(
            value.float(), values[f"plain_{kind}"].float(), rtol=tolerance, atol=tolerance
        )
    kinds = {value.item() for value in values.values()}
    assert len(kinds) >= 3 and all(value > 0 for value in values.values())


def test_training_steps(tmp_path, capsys):
    bench = Bench(Namespace(rounds=1, size=None), str(tmp_path), print)
    seconds = measure_training(bench, 8, MODELS)
    assert list(seconds) == ["plain", "chunked_8"]
    rows = bench.measured["language_model_training"]
    for name, figures in rows.items():
        assert 0 < seconds[name] == figures["seconds"] < 10
        assert figures["tokens_per_second"] == pytest.approx(32 / figures["seconds"])
    out = capsys.readouterr().out
    assert "tokens/s" in out and "2 x 16 tokens" in out and "train_runtime" not in out
