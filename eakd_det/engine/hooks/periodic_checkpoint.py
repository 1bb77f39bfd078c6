"""Periodic checkpoints, of which the newest are kept."""

import os
import re

from detectron2.engine.hooks import PeriodicCheckpointer

PERIODIC = re.compile(r"model_(\d+)\.pth")


class PeriodicCheckpoint(PeriodicCheckpointer):
    """PeriodicCheckpointer that counts the checkpoints of earlier starts of a run, too.

    Among them are those that a stopped run has left between two periods. A file behind the start,
    of a process that was killed before it named the file in last_checkpoint, is written again and
    does not count as an older one.
    """

    def before_train(self) -> None:
        super().before_train()
        if self.trainer.start_iter:
            files = sorted(self.checkpointer.get_all_checkpoint_files())
            found = {file: PERIODIC.fullmatch(os.path.basename(file)) for file in files}
            self.recent_checkpoints = [
                file
                for file, name in found.items()
                if name and int(name[1]) < self.trainer.start_iter
            ]

    def after_step(self) -> None:
        super().after_step()
        if self.max_to_keep is not None and (self.trainer.iter + 1) % self.period == 0:
            while len(self.recent_checkpoints) > self.max_to_keep:
                oldest = self.recent_checkpoints.pop(0)
                if os.path.exists(oldest):
                    os.remove(oldest)
