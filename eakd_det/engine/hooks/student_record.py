"""Check and record of the student at the start of a run."""

import logging

import torch
from detectron2.engine import HookBase
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from eakd_det.engine.run_record import record_parameters


class StudentRecord(HookBase):
    """Records the student's parameters in run.json and warns of frozen norms without statistics."""

    def __init__(self, checkpointer: Checkpointer):
        """
        Args:
            checkpointer: of the run; it has loaded the student's weights.
        """
        self.checkpointer = checkpointer

    def before_train(self) -> None:
        record_parameters(self.checkpointer.save_dir, self.checkpointer.model)
        if comm.is_main_process():
            warn_of_identity_norms(self.checkpointer.model)


def warn_of_identity_norms(student: nn.Module) -> None:
    """Warn of frozen batch norms that are the identity, as those of a fresh backbone are."""
    norms = {n: m for n, m in student.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    without = [name for name, norm in norms.items() if _is_identity(norm)]
    if without:
        logging.getLogger(__name__).warning(
            f"{len(without)} of the student's {len(norms)} FrozenBN layers, {without[0]} among "
            "them, have no statistics, so that nothing is normalised there: no weights were loaded "
            "for them. Start from a pretrained backbone (MODEL.WEIGHTS, in a Python config "
            "train.init_checkpoint), or set MODEL.RESNETS.NORM to BN or SyncBN and "
            "MODEL.BACKBONE.FREEZE_AT to 0."
        )


def _is_identity(norm: FrozenBatchNorm2d) -> bool:
    is_one = torch.isclose(norm.running_var, norm.weight, atol=1e-3)  # but for eps
    return bool(((norm.weight == 1) & (norm.bias == 0) & (norm.running_mean == 0) & is_one).all())
