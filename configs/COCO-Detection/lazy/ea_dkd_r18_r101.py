"""EA-DKD-R18-R101.yaml as a Python config."""

from eakd_det.config.lazy import distillation
from eakd_det.modeling.meta_arch.rcnn import DistillRCNN

from .student_r18 import (  # noqa: F401  (names of this config, too)
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model._target_ = DistillRCNN
model.distillation = distillation(
    config_file="COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml",
    weights="detectron2://COCO-Detection/faster_rcnn_R_101_FPN_3x/137851257/model_final_f6e8b1.pkl",
    methods={"DKD": {"alpha": 1.0, "beta": 0.25, "temperature": 1.0}},
    ea={"temperature": 4.0},
    dataset="coco_2017_train",
)
train.output_dir = "output/COCO-Detection/lazy/ea_dkd_r18_r101"
