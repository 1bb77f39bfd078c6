"""Check and record of the student at the start of a run."""

from detectron2.engine import HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from eakd_det.engine.run_record import record_parameters

from .frozen_norms import warn_of_identity_norms


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
