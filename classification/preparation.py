"""The frozen teacher of a classifier, which prepares itself to answer fast."""

import torch
from torch import Tensor, nn

from eakd_det.modeling.teacher.fuse_norms import fold_batch_norms, freeze
from eakd_det.modeling.teacher.preparation import report_difference
from eakd_det.modeling.teacher.winograd import use_winograd
from eakd_det.utils.precision import Precision

from .models import Outputs, features_of


class Teacher:
    """A frozen classifier; a plain object, so that no optimizer, state_dict or DDP sees it.

    N counts images, C classes.

    Attributes:
        model: the classifier, in eval mode.
        layers: of a timm or torchvision model, the modules whose maps features are.
        precision: in which it computes once it is prepared.
        is_prepared: whether nothing is left to be prepared.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: tuple[str, ...] = (),
        *,
        fast: bool = False,
        precision: Precision | None = None,
    ):
        """
        Args:
            fast: whether preparing it folds batch norms into convolutions, in channels_last, and
                lets a CPU compute wide ones in tiles.
            precision: None is that of the student around it.
        """
        self.model, self.layers, self.fast = freeze(model), layers, fast
        self.precision = precision or Precision()
        self.is_prepared = not fast and not self.precision.name

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Fold, cast and lay out the weights in place, and log how far that moved its logits.

        Args:
            images: (N, 3, H, W), to compare them on.
        """
        before = self.model(images)
        if self.fast:
            fold_batch_norms(self.model, keep=self.layers)
            if self.precision.dtype is None:
                use_winograd(self.model)
            self.model.to(memory_format=torch.channels_last)
        if self.precision.dtype is not None:
            self.model.to(self.precision.dtype)
        self.is_prepared = True
        report_difference([before], [self.logits(images)])

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(N, C) of images (N, 3, H, W); half precisions give halves."""
        with self.precision.context(images.device):
            return self.model(self._input(images))

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Outputs:
        """As `logits`, with the features before their activation."""
        with self.precision.context(images.device):
            return features_of(self.model, self._input(images), self.layers, preactivations=True)

    def _input(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.fast and self.is_prepared else torch.preserve_format
        return images.to(dtype=self.precision.dtype, memory_format=layout)
