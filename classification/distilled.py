"""A student classifier that is trained beside a teacher: a forward pass of each for each view."""

from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from eakd_det.distillers import DistillationObjective, LogitPair
from eakd_det.distillers.ea import NO_EA
from eakd_det.modeling.teacher import WithTeacher
from eakd_det.utils.errors import UserError

from .distillers import DISTILLERS, ClassifierBatch
from .loader import LARGE_PRIME
from .models import Outputs, features_of
from .teacher import ClassifierTeacher

CAUSES = (
    "Are its classes in another order than the labels, was it trained on other data, or on images "
    "of other normalisation or channel order?"
)


class DistilledClassifier(WithTeacher):
    """Takes batches of `classification.views`: losses by name in training, else logits.

    Attributes:
        student: the classifier that is trained; a checkpoint's "model" is its state alone.
        objective: computes the distillation losses.
        adapters: modules that train beside the student and are no part of it.
        num_views: views of each image that the methods need.
        path_method: the method that runs both networks itself, or None.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: ClassifierTeacher | None = None,
        *,
        methods: dict[str, dict[str, Any]] | None = None,
        ea: dict[str, Any] = NO_EA,
        ce_weight: float = 1.0,
        layers: tuple[str, ...] = (),
        image_size: int = 32,
        channels_last: bool = False,
        steps_per_epoch: int = 1,
        seed: int = 0,
    ):
        """
        Args:
            teacher: None if there are no methods.
            methods, ea: as those of `DistillationObjective`.
            ce_weight: factor of the cross-entropy with the labels, of each view.
            layers: names of the modules of a timm or torchvision student whose maps are features.
            image_size: height and width of the images.
            channels_last: the memory format of the images and of both networks; a fast teacher has
                it once it is prepared.
            steps_per_epoch: iterations of an epoch.
            seed: of the random draws of a method in each step, the same in all processes.

        Raises:
            UserError: teacher and student cannot be compared by the methods.
        """
        super().__init__()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.student = student.to(memory_format=self.format)
        self.teacher, self.layers = teacher, layers
        if teacher is not None:
            teacher.model.to(memory_format=self.format)
        self.ce_weight, self.steps_per_epoch, self.seed = ce_weight, steps_per_epoch, seed
        self.objective = DistillationObjective(
            DISTILLERS, methods or {}, ea, samples="images", causes=CAUSES
        )
        self.compares_features = bool(self.objective.methods_on("features"))
        self.num_views = 2 if self.objective.methods_on("views") else 1
        self.path_method = next(iter(self.objective.methods_on("paths")), None)
        if self.path_method is not None:
            self._check_path_method()
        self.adapters = self.objective.build_adapters(*self._adapter_arguments(image_size))

    def train(self, mode: bool = True) -> "DistilledClassifier":
        """Set the mode; the teacher's stays eval, except in FCFD (batch statistics in both)."""
        super().train(mode)
        if self.teacher is not None and self.moves_teacher:
            self.teacher.model.train(mode and self.path_method is not None)
        return self

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor] | Tensor:
        """
        Args:
            batch: "views", a list of (N, 3, H, W), and in training "labels", (N,), and "scale", a
                factor of the losses.

        Returns:
            In training the losses by name, scalars, without gradients that with the labels alone;
            else the student's logits, (N, C).
        """
        losses = self._forward(batch)
        if self.training and batch["scale"] != 1:
            losses = {name: batch["scale"] * loss for name, loss in losses.items()}
        return losses

    def is_static(self) -> bool:
        """Return True if this iteration's losses are computed from tensors alone, in training.

        A CUDA graph then repeats them for another batch. Needs Detectron2's event storage.
        """
        if not self.objective.methods:
            return True
        is_prepared = self.teacher.is_prepared  # by the first iteration
        return is_prepared and self.objective.is_static(self._epoch(get_event_storage().iter))

    def _forward(self, batch: dict[str, Any]) -> dict[str, Tensor] | Tensor:
        device = next(self.student.parameters()).device
        views = [
            view.to(device, non_blocking=True, memory_format=self.format) for view in batch["views"]
        ]
        if not self.training:
            return self.student(views[0])
        labels = batch["labels"].to(device, non_blocking=True)
        if not self.objective.methods or not torch.is_grad_enabled():
            return {"loss_cls": self.ce_weight * F.cross_entropy(self.student(views[0]), labels)}
        if self.path_method is None and not self.teacher.is_prepared:
            self.teacher.prepare(lambda: [self.teacher.logits(views[0])])
        compared = self._compare(views, labels, get_event_storage().iter)
        pairs = compared.weighted_pairs
        cross_entropies = [F.cross_entropy(pair.student_logits, labels) for pair in pairs]
        losses = self.objective(compared, self.adapters)
        return {"loss_cls": self.ce_weight * sum(cross_entropies), **losses}

    def _compare(self, views: list[Tensor], labels: Tensor, step: int) -> ClassifierBatch:
        """Run both networks on each view; features are those of the first."""
        epoch = self._epoch(step)
        if self.path_method is not None:
            networks = self.student, self.teacher.model, self.adapters[self.path_method]
            seed = self.seed * LARGE_PRIME + step
            paths = DISTILLERS[self.path_method].run(*networks, views[0], seed)
            pair = _pair(paths.student_logits, paths.teacher_logits, labels)
            return ClassifierBatch([pair], paths=paths, epoch=epoch)
        student, teacher = self._outputs(views[0])
        strong = [_pair(*self._logits(view), labels) for view in views[1:]]
        return ClassifierBatch(
            [_pair(student.logits, teacher.logits, labels)],
            student_features=_levels(student.maps, student.pooled),
            teacher_features=_levels(teacher.preactivations, teacher.pooled),
            strong=strong[0] if strong else None,
            epoch=epoch,
        )

    def _epoch(self, step: int) -> int:
        return step // self.steps_per_epoch + 1

    def _outputs(self, images: Tensor) -> tuple[Outputs, Outputs]:
        """Return the outputs of student and teacher."""
        if not self.compares_features:
            return tuple(Outputs(logits, [], [], None) for logits in self._logits(images))
        student = features_of(self.student, images, self.layers)
        return student, self.teacher.outputs(images)

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of student and teacher."""
        teacher_logits = self.teacher.logits(images)
        return self.student(images), teacher_logits

    def _check_path_method(self) -> None:
        """Raise UserError if the other methods or the teacher's precision do not go with it."""
        others = self.objective.methods_on("features") + self.objective.methods_on("views")
        if others:
            raise UserError(
                f"{self.path_method} runs both networks itself and goes together with methods on "
                f"logits alone, not with {others[0]}."
            )
        if self.teacher.precision.name:
            raise UserError(
                f"{self.path_method}'s paths cross from one network into the other, in one "
                "precision: leave TEACHER.PRECISION empty. SOLVER.AMP is that of both."
            )

    def _adapter_arguments(self, image_size: int) -> tuple[Any, ...]:
        images = torch.zeros(1, 3, image_size, image_size)
        if self.path_method is not None:
            return self.student, self.teacher.model, images
        return self._feature_channels(images) if self.compares_features else ()

    @torch.no_grad()
    def _feature_channels(self, images: Tensor) -> tuple[list[int], list[int]]:
        """Return the channels of the features of both, from a forward pass of one image."""
        was_training = self.student.training
        self.student.eval()
        student = features_of(self.student, images, self.layers)
        self.student.train(was_training)
        teacher = features_of(self.teacher.model, images, self.teacher.layers)
        if len(student.maps) != len(teacher.maps):
            raise UserError(
                f"The student has {len(student.maps)} stages and the teacher "
                f"{len(teacher.maps)}: their features cannot be compared."
            )
        return tuple([x.shape[1] for x in _levels(o.maps, o.pooled)] for o in (student, teacher))


def _pair(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> LogitPair:
    return LogitPair(student_logits, teacher_logits, labels, normalizer=len(labels))


def _levels(maps: list[Tensor], pooled: Tensor | None) -> list[Tensor]:
    """Return the features that are compared: the maps without the stem's, and the pooled ones."""
    return [] if pooled is None else [*maps[1:], pooled[:, :, None, None]]
