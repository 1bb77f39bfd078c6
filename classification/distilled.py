"""A student classifier in training, beside a teacher: one forward pass of each for each view."""

from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from eakd_det.distillers.entropy_statistics import LOG_PERIOD, part_statistics, weight_columns
from eakd_det.distillers.label_agreement import LabelAgreement
from eakd_det.distillers.methods import EA_MODES, Head
from eakd_det.losses import shared_softmax
from eakd_det.modeling.teacher import WithTeacher
from eakd_det.utils.errors import UserError

from .distillers import DISTILLERS, ImageComparison
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
        helpers: modules that train with it and are no part of it.
        num_views: views of each image that the methods need.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: ClassifierTeacher | None = None,
        *,
        methods: dict[str, dict[str, Any]] | None = None,
        ea: dict[str, Any] | None = None,
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
            methods: name in DISTILLERS -> its options, with "weight", the factor of its loss, and
                "warmup", the epochs over which that factor rises from 0.
            ea: "enabled", "mode", "temperature" and "bound" of the EA weight; None leaves it away.
            ce_weight: factor of the cross-entropy with the labels, of each view.
            layers: of a timm or torchvision student, the modules whose maps features are.
            image_size: height and width of the images.
            channels_last: the memory format of the images and of both networks; a fast teacher has
                it once it is prepared.
            steps_per_epoch: by which iterations become epochs.
            seed: of what a method draws at each step, the same in all processes.

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
        self.methods = {name: dict(options) for name, options in (methods or {}).items()}
        self.weigh = EA_MODES[ea["mode"]] if ea and ea["enabled"] else None
        self.entropy_temperature = ea["temperature"] if ea else 1.0
        self.entropy_bound = (ea["bound"] or None) if ea else None
        compared = {DISTILLERS[name].compares for name in self.methods}
        self.compares_features = "features" in compared
        self.num_views = 2 if "views" in compared else 1
        of_paths = [name for name in self.methods if DISTILLERS[name].compares == "paths"]
        self.path_method = of_paths[0] if of_paths else None
        does_compare = self.weigh is not None or bool(compared - {"features"})
        self.agreement = LabelAgreement("images", CAUSES, is_open=does_compare)
        self._refuse_what_does_not_go_together()
        self.helpers = nn.ModuleDict(self._build_helpers(image_size))

    def train(self, mode: bool = True) -> "DistilledClassifier":
        """The teacher stays in eval mode, but for FCFD, where batches normalise it, too."""
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

    def _forward(self, batch: dict[str, Any]) -> dict[str, Tensor] | Tensor:
        device = next(self.student.parameters()).device
        views = [
            view.to(device, non_blocking=True, memory_format=self.format) for view in batch["views"]
        ]
        if not self.training:
            return self.student(views[0])
        labels = batch["labels"].to(device, non_blocking=True)
        if not self.methods or not torch.is_grad_enabled():
            return {"loss_cls": self.ce_weight * F.cross_entropy(self.student(views[0]), labels)}
        if self.path_method is None and not self.teacher.is_prepared:
            self.teacher.prepare(lambda: [self.teacher.logits(views[0])])
        step = get_event_storage().iter
        comparison = self._compare(views, labels, step)
        heads = [head for head in (*comparison.heads, comparison.strong) if head is not None]
        is_logged = (step + 1) % LOG_PERIOD == 0
        if self.agreement.is_open:
            self.agreement.count(heads[0].teacher_logits, labels)
            if is_logged and self.agreement.is_open:
                self.agreement.report()
        cross_entropies = [F.cross_entropy(head.student_logits, labels) for head in heads]
        with shared_softmax():
            self._weigh_and_log(heads, is_logged=is_logged)
            losses = self._distill(comparison)
        return {"loss_cls": self.ce_weight * sum(cross_entropies), **losses}

    def _distill(self, comparison: ImageComparison) -> dict[str, Tensor]:
        losses = {}
        for name, options in self.methods.items():
            options = dict(options)
            scale, warmup = options.pop("weight"), options.pop("warmup")
            if warmup:
                scale *= min(comparison.epoch / warmup, 1.0)
            if name in self.helpers:
                options["helper"] = self.helpers[name]
            for suffix, loss in DISTILLERS[name](comparison, **options).items():
                losses[f"loss_{name.lower()}{suffix}"] = scale * loss
        return losses

    def _compare(self, views: list[Tensor], labels: Tensor, step: int) -> ImageComparison:
        """Run both networks on each view; features are those of the first."""
        epoch = step // self.steps_per_epoch + 1
        if self.path_method is not None:
            networks = self.student, self.teacher.model, self.helpers[self.path_method]
            seed = self.seed * LARGE_PRIME + step
            paths = DISTILLERS[self.path_method].run(*networks, views[0], seed)
            head = _head(paths.student_logits, paths.teacher_logits, labels)
            return ImageComparison([], [], [head], paths=paths, epoch=epoch)
        student, teacher = self._outputs(views[0])
        strong = [_head(*self._logits(view), labels) for view in views[1:]]
        return ImageComparison(
            student_features=_levels(student.maps, student.pooled),
            teacher_features=_levels(teacher.preactivations, teacher.pooled),
            heads=[_head(student.logits, teacher.logits, labels)],
            strong=strong[0] if strong else None,
            epoch=epoch,
        )

    def _outputs(self, images: Tensor) -> tuple[Outputs, Outputs]:
        """Of student and teacher."""
        if not self.compares_features:
            return tuple(Outputs(logits, [], [], None) for logits in self._logits(images))
        student = features_of(self.student, images, self.layers)
        return student, self.teacher.outputs(images)

    def _logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of student and teacher."""
        teacher_logits = self.teacher.logits(images)
        return self.student(images), teacher_logits

    def _weigh_and_log(self, heads: list[Head], *, is_logged: bool) -> None:
        if self.weigh is None and not is_logged:
            return
        pairs = [head.entropies(self.entropy_temperature) for head in heads]
        if self.weigh is not None:
            for head, pair in zip(heads, pairs, strict=True):
                head.weight = self.weigh(*pair, head.num_outcomes, self.entropy_bound)
        if is_logged:
            columns = [weight_columns(*p, heads[0].num_outcomes, self.entropy_bound) for p in pairs]
            statistics = part_statistics({"images": torch.cat(columns, dim=1)})
            for name, helper in self.helpers.items():
                statistics.update(DISTILLERS[name].statistics(helper))
            get_event_storage().put_scalars(**statistics, smoothing_hint=False)

    def _refuse_what_does_not_go_together(self) -> None:
        without = [name for name in self.methods if not DISTILLERS[name].has_ea_form]
        if self.weigh is not None and without:
            raise UserError(
                f"{without[0]} has no EA form: its weights are static. DISTILL.EA.ENABLED must be "
                "False."
            )
        others = [n for n in self.methods if DISTILLERS[n].compares not in ("logits", "paths")]
        if self.path_method is not None and others:
            raise UserError(
                f"{self.path_method} runs both networks itself and goes together with methods on "
                f"logits alone, not with {others[0]}."
            )
        if self.path_method is not None and self.teacher.precision.name:
            raise UserError(
                f"{self.path_method}'s paths cross from one network into the other, in one "
                "precision: leave TEACHER.PRECISION empty. SOLVER.AMP is that of both."
            )

    def _build_helpers(self, image_size: int) -> dict[str, nn.Module]:
        """In random numbers of their own: the student goes on with those it had."""
        names = [name for name in self.methods if DISTILLERS[name].has_helper]
        if not names:
            return {}
        images = torch.zeros(1, 3, image_size, image_size)
        with torch.random.fork_rng(devices=[]):
            if self.path_method is not None:
                arguments = self.student, self.teacher.model, images
            else:
                arguments = self._feature_channels(images) if self.compares_features else ()
            return {name: DISTILLERS[name].build_helper(*arguments) for name in names}

    @torch.no_grad()
    def _feature_channels(self, images: Tensor) -> tuple[list[int], list[int]]:
        """Channels of the features of student and teacher, from a forward pass of one image."""
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


def _head(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Head:
    number = len(labels)
    return Head(student_logits, teacher_logits, labels, normalizer=number)


def _levels(maps: list[Tensor], pooled: Tensor | None) -> list[Tensor]:
    """What features are compared: the maps without the stem's, and the pooled ones."""
    return [] if pooled is None else [*maps[1:], pooled[:, :, None, None]]
