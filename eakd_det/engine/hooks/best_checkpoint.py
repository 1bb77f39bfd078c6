"""Checkpoint of the best evaluation, model_best.pth."""

import logging
import os

from detectron2.engine.hooks import BestCheckpointer

from eakd_det.checkpoint.safe_pickle import load_pth
from eakd_det.utils.files import unused_path


class BestCheckpoint(BestCheckpointer):
    """BestCheckpointer that saves the metric in the file and reads it in a resumed run."""

    def before_train(self) -> None:
        path = os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.pth")
        if not os.path.isfile(path):
            return
        if self.trainer.start_iter == 0:  # of another run in the same folder
            os.replace(path, unused_path(path))
        else:
            saved = load_pth(path)
            self.best_metric, self.best_iter = saved["metric"], saved["iteration"]

    def _best_checking(self) -> None:
        if self._val_metric not in self.trainer.storage.latest():
            logging.getLogger(__name__).warning(
                f"TEST.BEST_METRIC: the evaluation gives no {self._val_metric}; there will be no "
                "model_best.pth. (In a Python config the key is train.best_metric.)"
            )
            return
        value, iteration = self.trainer.storage.latest()[self._val_metric]
        is_better = self.best_metric is None or value > self.best_metric
        if is_better and self._update_best(value, iteration):  # a NaN is no update
            self._checkpointer.save(self._file_prefix, iteration=iteration, metric=value)
