import json
import sys

import pytest

from eakd_det.benchmark.batches import FIXED, Size, make_batch, with_options
from eakd_det.benchmark.scaling import measure_checkpoint, measure_reduction
from eakd_det.benchmark.steps import build_step
from tests.conftest import NUM_CLASSES

EXCHANGE = """
import json, sys
from eakd_det.benchmark.scaling import measure_exchange

if __name__ == "__main__":
    print(json.dumps(measure_exchange({"loss_dkd": 1.0})))
"""


@pytest.fixture
def step(distill_cfg):
    cfg = with_options(distill_cfg, FIXED)
    return build_step(cfg, make_batch(Size(1, 64, 96), NUM_CLASSES))


def test_the_student_s_gradients_are_reduced(step):
    model = step.trainer.model
    reduction = measure_reduction(step)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert reduction.bytes == sum(4 * p.numel() for p in trained)
    ready = [bucket.ready for bucket in reduction.buckets]
    assert len(ready) > 1 and ready == sorted(ready) and 0 < ready[0] and reduction.end < 1
    assert 0 < reduction.overlapped < 1
    assert step.trainer.model is model
    step()


def test_a_checkpoint_holds_weights_and_momenta(step, tmp_path):
    step()
    measured = measure_checkpoint(step, str(tmp_path))
    weights = sum(4 * p.numel() for p in step.trainer.model.parameters())
    assert 1.5 * weights < measured["checkpoint_bytes"] < 2.2 * weights
    assert measured["save_seconds"] > 0 and measured["load_seconds"] > 0


@pytest.mark.slow
def test_two_processes_exchange(start_tool, tmp_path):
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    process = start_tool("", launcher=(sys.executable, str(tmp_path / "exchange.py")))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    measured = json.loads(out)
    assert 0 < measured["signal_seconds"] < 1 and 0 < measured["losses_seconds"] < 1
    assert 20 < measured["losses_bytes"] < 200
