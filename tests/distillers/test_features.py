import torch

from eakd_det.distillers import DISTILLERS
from eakd_det.losses import ReviewFusion, hcl_loss

from .batches import make_batch, make_pair


def test_reviewkd():
    batch = make_batch(make_pair(sample_weight=torch.rand(7)))
    adapter = DISTILLERS["REVIEWKD"].build_adapter([5], [5])
    assert isinstance(adapter, ReviewFusion)
    loss = DISTILLERS["REVIEWKD"](batch, adapter=adapter)
    fused = adapter(batch.student_features)
    expected = hcl_loss(fused, batch.teacher_features, weight=batch.image_weight())
    assert torch.equal(loss[""], expected)
