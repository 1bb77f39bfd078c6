import math

import pytest
import torch

from eakd_det.distillers import DISTILLERS, SHARED_DISTILLERS
from eakd_det.losses import (
    GlobalRelation,
    MapAdapter,
    MaskedGeneration,
    ReviewFusion,
    cwd_loss,
    draw_masks,
    fgd_loss,
    hcl_loss,
    mgd_loss,
    pkd_loss,
)

from .batches import make_batch, make_pair


def make_weighted_batch(**options):
    return make_batch(make_pair(sample_weight=torch.rand(7)), **options)


def make_adapter(name, adapter_class, channels=(5,)):
    torch.manual_seed(0)
    adapter = DISTILLERS[name].build_adapter(channels, [5])
    assert isinstance(adapter, adapter_class)
    return adapter


def call(name, batch, adapter, **options):
    distiller = DISTILLERS[name]
    return distiller(batch, adapter=adapter, **{**distiller.defaults, **options})[""]


def test_reviewkd():
    batch, adapter = make_weighted_batch(), make_adapter("REVIEWKD", ReviewFusion)
    fused = adapter(batch.student_features)
    expected = hcl_loss(fused, batch.teacher_features, weight=batch.image_weight())
    assert torch.equal(call("REVIEWKD", batch, adapter), expected)


@pytest.mark.parametrize(
    ("name", "loss", "options"), [("CWD", cwd_loss, {"temperature": 2.0}), ("PKD", pkd_loss, {})]
)
def test_losses_on_adapted_maps(name, loss, options):
    batch = make_weighted_batch()
    batch.student_features = [batch.student_features[0][:, :3, :2]]
    adapter = make_adapter(name, MapAdapter, [3])
    maps = adapter(batch.student_features, [(4, 4)])
    expected = loss(maps, batch.teacher_features, weight=batch.image_weight(), **options)
    assert torch.equal(call(name, batch, adapter, **options), expected)


def test_mgd():
    batch, adapter = make_weighted_batch(), make_adapter("MGD", MaskedGeneration)
    torch.manual_seed(3)
    got = call("MGD", batch, adapter, alpha=0.1, mask_ratio=0.6)
    torch.manual_seed(3)
    masks = draw_masks(batch.teacher_features, mask_ratio=0.6)
    maps = adapter(batch.student_features, [(4, 4)], masks)
    weight = batch.image_weight()
    assert torch.equal(got, mgd_loss(maps, batch.teacher_features, alpha=0.1, weight=weight))
    assert DISTILLERS["MGD"].changing_epochs(alpha=0.1, mask_ratio=0.6) == math.inf


def test_fgd():
    boxes = [torch.tensor([[0.0, 0, 10, 10]]), torch.zeros(0, 4), torch.tensor([[5.0, 2, 40, 20]])]
    batch = make_weighted_batch(boxes=lambda: boxes, padded_size=(32, 64))
    adapter = make_adapter("FGD", GlobalRelation)
    got = call("FGD", batch, adapter, alpha=0.1)
    maps, contexts = adapter(batch.student_features, batch.teacher_features)
    rest = contexts, boxes, [(32, 64)] * 3
    weight = batch.image_weight()
    expected = fgd_loss(maps, batch.teacher_features, *rest, alpha=0.1, weight=weight)
    assert torch.equal(got, expected)
    assert "FGD" not in SHARED_DISTILLERS, "classifiers have no boxes"
