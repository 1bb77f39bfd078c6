"""A classifier's frozen teacher, its model and its weights."""

import os

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from eakd_det.config.safe_yaml import read_yaml
from eakd_det.modeling.teacher import FrozenTeacher, fuse_batch_norms
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import Precision

from .class_order import load_in_order
from .models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Outputs,
    build_classifier,
    features_of,
    published_normalisation,
    warn_of_large_stem,
)
from .own_images import is_own
from .sources import DATASETS, Source, source_of
from .teacher_run import PRETRAINED, final_checkpoint, teacher_config

SIDES = {"MODEL": "student", "TEACHER": "teacher"}  # prefixes in a file that holds both


class ClassifierTeacher(FrozenTeacher):
    """FrozenTeacher that is a classifier.

    N counts images, C classes.

    Attributes:
        layers: of a timm or torchvision model, names of the modules whose maps are the features.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: tuple[str, ...] = (),
        *,
        fast: bool = False,
        precision: Precision | None = None,
    ):
        super().__init__(model, fast=fast, precision=precision)
        self.layers = layers

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return logits (N, C) of images (N, 3, H, W), in the teacher's precision."""
        with self.context():
            return self.model(self._input(images))

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Outputs:
        """Return logits as `logits` does, with the features before their activation."""
        with self.context():
            return features_of(self.model, self._input(images), self.layers, preactivations=True)

    def _fuse_norms(self) -> None:
        fuse_batch_norms(self.model, keep=self.layers)


def build_model(name: str, weights: str, source: Source, *, key: str) -> nn.Module:
    """Build a classifier and load the weights that MODEL or TEACHER name.

    Args:
        name: argument of `build_classifier`.
        weights: a checkpoint that must fit, whose classes are brought into the order of the data
            set's; "pretrained" of timm or torchvision, which a "MODEL" of other classes takes up
            to its head; or empty.
        source: the data set whose images it will classify.
        key: "MODEL" or "TEACHER".

    Raises:
        UserError: there is no such model, it does not take images of this size, or its weights or
            its classes do not fit.
    """
    if not name:
        raise UserError(f"{key}.NAME is empty: name a model.")
    is_pretrained = weights == PRETRAINED
    options = {"pretrained": is_pretrained, "new_head": key == "MODEL"}
    model = build_classifier(name, source.num_classes, **options)
    if weights and not is_pretrained:
        options = {"image_size": source.image_size, "key": key, "side": SIDES[key]}
        load_in_order(model, weights, source.names, **options)
    _try_one_image(model, name, source.image_size)
    return model


@torch.no_grad()
def _try_one_image(model: nn.Module, name: str, size: int) -> None:
    """Raise UserError if the model returns no logits for images of this size."""
    try:
        logits = model.eval()(torch.zeros(1, 3, size, size))
    except Exception as error:  # a user's model may raise anything
        raise UserError(
            f"{name} does not take images of {size} x {size} pixels: {error}"
        ) from error
    finally:
        model.train()
    if not (isinstance(logits, torch.Tensor) and logits.dim() == 2):
        raise UserError(f"{name} gives no logits (N, C).")


def _renormalise(model: nn.Module, source: Source) -> None:
    """Normalise a model's inputs as its published weights expect, by a forward hook."""
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in published_normalisation(model))
    own_mean, own_std = (torch.tensor(x).view(-1, 1, 1) for x in (source.mean, source.std))
    factor, shift = own_std / std, (own_mean - mean) / std
    if torch.equal(factor, torch.ones(3, 1, 1)) and not shift.any():
        return

    def renormalise(_, args):
        (images,) = args
        return (images * factor.to(images) + shift.to(images),)

    model.register_forward_pre_hook(renormalise)


def _check_normalisation(weights: str, source: Source) -> None:
    """Raise UserError if the run that trained a teacher normalised its images otherwise."""
    path = os.path.join(os.path.dirname(weights), "config.yaml")
    data = read_yaml(path).get("DATASET", {}) if os.path.isfile(path) else {}
    named = DATASETS.get(data.get("NAME"))
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if named is None else (named.mean, named.std)
    theirs = tuple(data.get("MEAN", ())) or mean, tuple(data.get("STD", ())) or std
    if data and theirs != (source.mean, source.std):
        raise UserError(
            f"The teacher {weights} was trained with DATASET.MEAN {theirs[0]} and STD {theirs[1]}, "
            f"the student has {source.mean} and {source.std}: both read the same images, so set "
            "the teacher's."
        )


def build_teacher(cfg: CfgNode) -> ClassifierTeacher:
    """Build the teacher of a run, with its weights and not yet prepared.

    The random state is restored, so that the student trains as without a teacher.

    Raises:
        UserError: no teacher is named, there is no such model or precision, or its weights do not
            fit.
    """
    precision = Precision(cfg.TEACHER.PRECISION, cfg.SOLVER.AMP.DTYPE)
    own = teacher_config(cfg)
    name, weights = cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS
    if own is not None:
        name, weights = name or own.MODEL.NAME, weights or final_checkpoint(own)
    if not name:
        raise UserError(
            "There is no teacher: set TEACHER.CONFIG_FILE to the config of its own run, or "
            "TEACHER.NAME and TEACHER.WEIGHTS; or set DISTILL.METHODS to ()."
        )
    if not weights:
        raise UserError(f"The teacher {name} has no weights: set TEACHER.WEIGHTS.")
    source = source_of(cfg.DATASET)
    if is_own(cfg.DATASET.NAME):
        _check_normalisation(weights, source)
    with torch.random.fork_rng(devices=[]):
        model = build_model(name, weights, source, key="TEACHER")
    warn_of_large_stem(model, name, source.image_size, key="TEACHER")
    if weights == PRETRAINED:
        _renormalise(model, source)
    layers = cfg.TEACHER.LAYERS or (own.MODEL.LAYERS if own is not None else ())
    return ClassifierTeacher(model, tuple(layers), fast=cfg.TEACHER.FAST, precision=precision)
