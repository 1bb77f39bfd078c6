from argparse import Namespace

import pytest
import torch

from eakd_det.benchmark.batches import FIXED, Size, make_batch, with_options
from eakd_det.benchmark.bench import Bench
from eakd_det.benchmark.host_calls import dearest_calls
from eakd_det.benchmark.pooling import gpu_pooling
from eakd_det.benchmark.steps import build_step, step_builders
from eakd_det.benchmark.tables import COLUMNS
from eakd_det.benchmark.variants import gpu_variants, option_texts
from llm.benchmark_training import measure_training
from tests.conftest import NUM_CLASSES
from tests.llm.test_benchmark import MODELS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]

ON_GPU = (
    *("seconds", "host_seconds", "busy", "launches", "kernels"),
    *("allocated_mib", "reserved_mib", "above_mib"),
)


@pytest.fixture
def bench(tmp_path):
    return Bench(Namespace(rounds=1, size=None), str(tmp_path), print)


@pytest.fixture
def images():
    return make_batch(Size(2, 96, 128), NUM_CLASSES)


def _check(figures):
    assert 0 < figures["seconds"] < 10
    assert 0 < figures["busy"] <= 1 and figures["launches"] > 100 and figures["kernels"] > 100
    assert 0 < figures["allocated_mib"] <= figures["reserved_mib"] < 8000


@pytest.mark.parametrize("dtype", ["", "float16", "bfloat16"])
def test_the_table_of_a_detector(dtype, distill_cfg, bench, images, capsys):
    amp = {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": dtype} if dtype else {}
    cfg = with_options(distill_cfg, {**FIXED, **amp, "MODEL.DEVICE": "cuda"})
    variants = gpu_variants(with_compiled=False)
    builders = step_builders(cfg, variants, images)
    bench.steps(
        "tiny", builders, title="a tiny detector", base="stock_step", notes=option_texts(variants)
    )
    rows = bench.measured["tiny"]
    assert list(rows) == list(variants)
    for figures in rows.values():
        assert list(figures) == list(ON_GPU)
        _check(figures)
        assert 0 < figures["host_seconds"] <= figures["seconds"]
        assert 0 < figures["above_mib"] < figures["allocated_mib"]
    assert rows["stock_step"]["kernels"] < rows["distill_step"]["kernels"]
    out = capsys.readouterr().out
    assert all(COLUMNS[name].heading.split()[0] in out for name in ON_GPU)


def test_a_training_of_language_models(bench):
    measure_training(bench, 8, MODELS)
    for figures in bench.measured["language_model_training"].values():
        _check(figures)
        assert figures["tokens_per_second"] > 0


def test_the_host_s_calls_have_those_of_cuda(distill_cfg, images):
    step = build_step(with_options(distill_cfg, {**FIXED, "MODEL.DEVICE": "cuda"}), images)
    names = [name for name, _, _ in dearest_calls(step)["operators"]]
    assert "cudaLaunchKernel" in names


def test_layouts_and_dtypes_of_pooling():
    for run in gpu_pooling(1, 64, 96, 4, 8, 0, device=torch.device("cuda")).values():
        run()
