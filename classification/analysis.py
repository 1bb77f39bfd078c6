"""Networks and samples of the runs of classifiers, for `eakd_det.analysis`."""

import copy
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from eakd_det.analysis.directions import WeightPlane
from eakd_det.analysis.landscape import Loss
from eakd_det.analysis.runs import Run
from eakd_det.analysis.samples import Samples
from eakd_det.modeling.teacher import freeze, fuse_batch_norms
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError

from .config import load_config
from .data import Indices, read_images
from .loader import ViewLoader
from .models import pooled_features
from .sources import source_of
from .teacher import build_model, build_teacher

TEACHER = "teacher"  # label of it


@dataclass(frozen=True)
class Network:
    """A frozen classifier on its device.

    Attributes:
        label: for figures and tables.
        model: returns logits (N, C) of images (N, 3, H, W).
        run: run of the network; None for a teacher without one.
    """

    label: str
    model: nn.Module
    run: Run | None = None


@dataclass(frozen=True)
class Networks:
    """Classifiers to compare, on the data of one config.

    Attributes:
        cfg: config of the first run.
        teacher: None if no run has one and none is named.
        students: one for each run, in the order given.
    """

    cfg: CfgNode
    teacher: Network | None
    students: list[Network]

    @property
    def all(self) -> list[Network]:
        """Students, then the teacher."""
        return [*self.students, *([] if self.teacher is None else [self.teacher])]

    def needed_teacher(self) -> Network:
        """Return the teacher.

        Raises:
            UserError: there is none.
        """
        if self.teacher is None:
            raise UserError("None of the runs has a teacher: name one with --teacher.")
        return self.teacher


def load_networks(
    runs: list[Run], *, config_file: str = "", teacher: Run | None = None
) -> Networks:
    """Load the classifiers of runs, and their teacher.

    Args:
        runs: at least one.
        config_file: config of runs without a config.yaml.
        teacher: run of the teacher; None is the teacher of the first run that has one.

    Raises:
        UserError: a config or weights are missing or do not fit, or the runs are of several
            image sets.
    """
    configs = [_config_of(run, config_file) for run in runs]
    own = None if teacher is None else _config_of(teacher, config_file)
    for run, cfg in zip([*runs, teacher], [*configs, own], strict=True):
        if cfg is not None and cfg.DATASET.NAME != configs[0].DATASET.NAME:
            raise UserError(
                f"{run.label} is of {cfg.DATASET.NAME}, and {runs[0].label} of "
                f"{configs[0].DATASET.NAME}: they cannot be compared."
            )
    students = [Network(r.label, _load(r, cfg), r) for r, cfg in zip(runs, configs, strict=True)]
    if teacher is not None:
        return Networks(configs[0], Network(TEACHER, _load(teacher, own), teacher), students)
    distilled = [cfg for cfg in configs if cfg.TEACHER.CONFIG_FILE or cfg.TEACHER.NAME]
    if not distilled:
        return Networks(configs[0], None, students)
    model = build_teacher(distilled[0]).model.to(distilled[0].MODEL.DEVICE)
    return Networks(configs[0], Network(TEACHER, model), students)


def _config_of(run: Run, config_file: str) -> CfgNode:
    cfg = load_config(run.config_file(config_file))
    use_available_device(cfg)
    return cfg


def _load(run: Run, cfg: CfgNode) -> nn.Module:
    try:
        model = build_model(cfg.MODEL.NAME, run.weights, source_of(cfg.DATASET), key="MODEL")
    except UserError as error:
        raise UserError(f"{run.label}: {error}") from error
    return freeze(model).to(cfg.MODEL.DEVICE)


def read_batches(cfg: CfgNode, num_images: int = 0, *, is_train: bool = False) -> ViewLoader:
    """Load images of a run, without augmentation.

    Args:
        cfg: config of the run.
        num_images: size of a fixed random choice; 0, or more than there are, is all.
        is_train: load the training images in place of the test images.

    Raises:
        UserError: the image set is missing.
    """
    images = read_images(
        cfg.DATASET,
        is_train=is_train,
        size=cfg.DATASET.TRAIN_SIZE if is_train else 0,
        augment=False,
    )
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = chosen[: num_images or None].sort().values
    batches = [Indices(part.tolist(), seed=0) for part in chosen.split(cfg.TEST.BATCH_SIZE)]
    return ViewLoader(images, batches, cfg.DATASET.NUM_WORKERS, cfg.MODEL.DEVICE)


@torch.no_grad()
def collect_samples(networks: list[Network], loader: ViewLoader) -> list[Samples]:
    """Compute each network's logits and features of the loader's images, which are read once."""
    labels, found = [], [([], []) for _ in networks]
    for batch in loader:
        labels.append(batch["labels"].cpu())
        for network, parts in zip(networks, found, strict=True):
            for part, x in zip(
                parts, pooled_features(network.model, batch["views"][0]), strict=True
            ):
                part.append(x.float().cpu())
    return [
        Samples(torch.cat(labels), torch.cat(logits), torch.cat(features))
        for logits, features in found
    ]


def plane_loss(network: Network, batches: list[tuple[Tensor, Tensor]], seed: int) -> Loss:
    """Return the mean cross-entropy of images and labels as a function of a plane of weights.

    Batch norms are fused into the convolutions before them, which is faster and leaves the plane
    as it is: a direction is scaled to the norm of its filter, whatever factor that has got. Only
    where the factor is negative does a filter go the other way, which is as random.

    Args:
        network: the centre of the plane (`WeightPlane`); it is not changed.
        batches: images (N, 3, H, W) and labels (N,), on the network's device.
        seed: of the directions.
    """
    model = copy.deepcopy(network.model)
    fuse_batch_norms(model)
    model.to(memory_format=torch.channels_last)
    batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    plane, number = WeightPlane(model, seed), sum(len(labels) for _, labels in batches)

    @torch.no_grad()
    def loss(alpha: float, beta: float) -> float:
        weights = plane.weights(alpha, beta)
        losses = [
            F.cross_entropy(functional_call(model, weights, (x,)), labels, reduction="sum")
            for x, labels in batches
        ]
        return sum(losses).item() / number

    return loss


def training_batches(cfg: CfgNode, num_images: int) -> list[tuple[Tensor, Tensor]]:
    """Load images and labels of a run's training set for `plane_loss`.

    Li et al., too, take the cross-entropy of training images without augmentation.
    """
    loader = read_batches(cfg, num_images, is_train=True)
    return [(batch["views"][0], batch["labels"]) for batch in loader]
