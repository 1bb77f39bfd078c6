"""Small detectors of each family that learn from a teacher."""

import torch
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage

from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.recorder import record
from tests.conftest import replace_teacher
from tests.modeling.meta_arch.test_distilled import CASCADE

MASK = ["MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]
MASK += ["MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8]
OPTIONS = {"faster": [], "mask": MASK, "cascade": CASCADE}
FAMILIES = (*OPTIONS, "retinanet")


def set_family(cfg, name, teacher_cfg, folder):
    """Make the config of a Faster R-CNN that of another family of R-CNNs, and its teacher's too."""
    replace_teacher(cfg, teacher_cfg, OPTIONS[name], folder)
    cfg.merge_from_list(OPTIONS[name])


def take_all_samples(cfg):
    """Leave out no anchor and no proposal at random."""
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 10**5
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 1000


def add_masks(batch):
    """Give the objects of a batch masks without straight edges."""
    for sample in batch:
        height, width = sample["instances"].image_size
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = sample["instances"].gt_boxes.get_centers()
        circles = [(y - cy - 0.3) ** 2 + (x - cx - 0.2) ** 2 < 17.3**2 for cx, cy in centres]
        sample["instances"].gt_masks = BitMasks(torch.stack(circles))


def build(cfg, seed=0):
    """Build the model of a config, with the same weights on each device."""
    torch.manual_seed(seed)
    return build_model(cfg)


def run(cfg, batch, steps, **options):
    """Train some steps on one batch; return the DistillStep and the storage with the losses."""
    model = build(cfg)
    trained = DistillStep(
        model, [batch] * steps, build_optimizer(cfg, model), max_iter=steps, **options
    )
    if trained.grad_scaler.is_enabled():  # the first steps overflow with the usual one
        trained.grad_scaler.load_state_dict({**trained.grad_scaler.state_dict(), "scale": 128.0})
    with EventStorage() as storage:
        for trained.iter in range(steps):
            storage.iter = trained.iter
            trained.run_step()
    return trained, storage


def first_step(cfg, batch, device, proposals=None, memory_format=torch.contiguous_format):
    """Return the losses, the gradients on the CPU, and the RPN's proposals of a first step.

    Args:
        proposals: take the place of the RPN's, whose order and choice hang on the last digits of
            their scores.
    """
    cfg.MODEL.DEVICE = str(device)
    model = build(cfg).to(memory_format=memory_format)
    has_rpn = "RCNN" in cfg.MODEL.META_ARCHITECTURE
    sources = {"proposals": model.proposal_generator.predict_proposals} if has_rpn else {}
    if proposals:
        sources, given = {}, [x.to(device) for x in proposals]
        model.proposal_generator.predict_proposals = lambda *_: given
    with record(**sources) as calls:
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {n: x.grad.cpu() for n, x in model.named_parameters() if x.grad is not None}
    found = [call.output for call in calls.get("proposals", ())]
    return {name: x.item() for name, x in losses.items()}, gradients, found[0] if found else None


def losses_of(storage):
    """Return the last value of each loss."""
    return {name: x for name, (x, _) in storage.latest().items() if "loss" in name}
