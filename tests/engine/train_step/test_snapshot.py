import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

from eakd_det.engine.train_step.snapshot import Snapshot, running_buffers
from tests.reads import reads


@pytest.mark.parametrize("is_wanted", [False, True])
def test_values_come_back(is_wanted):
    tensors = {
        "scalar": torch.tensor(1.5),
        "maps": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(2**40),
        "half": torch.rand(3).half(),
        "nothing": torch.zeros(0),
    }
    before = {name: x.clone() for name, x in tensors.items()}
    snapshot = Snapshot(tensors)
    for x in tensors.values():
        x.add_(1)
    tensors["maps"].fill_(torch.nan)
    tensors["half"] = tensors["half"].clone()  # an optimizer may make another tensor
    tensors["new"] = torch.ones(2)
    after = {name: x.clone() for name, x in tensors.items()}
    with reads() as names:
        snapshot.restore(tensors, torch.tensor(is_wanted))
    expected = {**before, "new": torch.zeros(2)} if is_wanted else after
    torch.testing.assert_close(tensors, expected, rtol=0, atol=0, equal_nan=True)
    assert not names


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_running_buffers_are_those_that_a_step_changes(stock_cfg, batch, storage, norm):
    stock_cfg.MODEL.RESNETS.NORM, stock_cfg.MODEL.BACKBONE.FREEZE_AT = norm, 0
    model = build_model(stock_cfg)
    named = {(m, n): x for m in model.modules() for n, x in m.named_buffers(recurse=False)}
    before = {key: x.clone() for key, x in named.items()}
    model(batch)
    changed = {key for key, x in named.items() if not torch.equal(x, before[key])}
    assert changed == set(running_buffers(model, torch.device("cpu")))
    assert bool(changed) == (norm == "BN")


def test_buffers_of_other_modules_are_kept_if_a_checkpoint_holds_them():
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), FrozenBatchNorm2d(3))
    model.register_buffer("average", torch.zeros(2))
    model.register_buffer("constant", torch.ones(2), persistent=False)
    assert running_buffers(model, torch.device("cpu")) == [(model, "average")]
    assert not running_buffers(model, torch.device("meta"))
