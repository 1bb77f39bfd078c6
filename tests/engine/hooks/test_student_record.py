import torch
from detectron2.modeling import build_model

from eakd_det.engine.hooks.student_record import warn_of_identity_norms


def test_a_student_from_scratch_with_frozen_norms(stock_cfg, caplog):
    model = build_model(stock_cfg)
    warn_of_identity_norms(model)
    [text] = caplog.messages
    assert text.startswith("20 of the student's 20 FrozenBN layers, backbone.bottom_up.stem.conv1")
    caplog.clear()
    with torch.no_grad():  # as Caffe2's backbones have them, whose statistics are folded
        for name, buffer in model.named_buffers():
            if name.endswith("norm.weight"):
                buffer.fill_(0.5)
    warn_of_identity_norms(model)
    assert not caplog.messages


def test_norms_that_train_need_no_statistics(stock_cfg, caplog):
    """Stages that are frozen have FrozenBN all the same."""
    stock_cfg.MODEL.RESNETS.NORM = "BN"
    warn_of_identity_norms(build_model(stock_cfg))
    [text] = caplog.messages
    assert "the student's 5 FrozenBN layers" in text and "FREEZE_AT to 0" in text
    caplog.clear()
    stock_cfg.MODEL.BACKBONE.FREEZE_AT = 0
    warn_of_identity_norms(build_model(stock_cfg))
    assert not caplog.messages
