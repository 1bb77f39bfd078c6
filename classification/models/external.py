"""Models of timm and torchvision by name, and features of any classifier."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError
from eakd_det.utils.external_models import (
    check_name,
    downloading,
    import_timm,
    published_timm_config,
)

from .staged import Outputs, StagedClassifier

# Normalisation that torchvision's ImageNet weights expect.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREFIXES = ("timm:", "torchvision:")
_OTHERWISE = "start without --pretrained and without WEIGHTS pretrained"
WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # in torchvision


def check_external(name: str) -> None:
    """Check that timm or torchvision has a model.

    Args:
        name: "timm:NAME" or "torchvision:NAME".

    Raises:
        UserError: it has not, or timm is not installed.
    """
    library, _, own_name = name.partition(":")
    if library == "timm":
        import_timm(own_name)
    else:
        check_name("torchvision", own_name, torchvision_models.list_models(torchvision_models))


def build_external(
    name: str, num_classes: int, *, pretrained: bool, new_head: bool = False
) -> nn.Module:
    """Build a model of timm or torchvision.

    Args:
        name: "timm:NAME" or "torchvision:NAME".
        num_classes: number of classes of the data, and of outputs.
        pretrained: load its published weights, which are downloaded once.
        new_head: with published weights of another number of classes, start with a random head.

    Raises:
        UserError: timm is not installed, there is no such model, or it has no published weights
            (for `num_classes`, without `new_head`), or they cannot be downloaded.
    """
    library, _, own_name = name.partition(":")
    build = _timm if library == "timm" else _torchvision
    return build(own_name, num_classes, pretrained, new_head)


def _timm(name: str, num_classes: int, pretrained: bool, new_head: bool) -> nn.Module:
    timm = import_timm(name)
    if pretrained:
        _check_classes(
            f"timm:{name}", published_timm_config(name).num_classes, num_classes, new_head
        )
        with downloading(f"timm:{name}", _OTHERWISE):
            return timm.create_model(name, pretrained=True, num_classes=num_classes)
    return timm.create_model(name, num_classes=num_classes)


def _torchvision(name: str, num_classes: int, pretrained: bool, new_head: bool) -> nn.Module:
    if pretrained:
        published = torchvision_models.get_model_weights(name).DEFAULT
        pretrained_classes = len(published.meta["categories"])
        _check_classes(f"torchvision:{name}", pretrained_classes, num_classes, new_head)
        with downloading(f"torchvision:{name}", _OTHERWISE):
            model = torchvision_models.get_model(name, weights=published)
        if pretrained_classes == num_classes:
            return model
        fresh = _torchvision(name, num_classes, False, False)
        own = fresh.state_dict()
        fitting = {
            key: value
            for key, value in model.state_dict().items()
            if key in own and own[key].shape == value.shape
        }
        fresh.load_state_dict({**own, **fitting})
        return fresh
    # In training these would also return the logits of auxiliary heads.
    plain = {"aux_logits": False, "init_weights": True} if name in WITH_AUXILIARY_HEADS else {}
    return torchvision_models.get_model(name, num_classes=num_classes, **plain)


def _check_classes(name: str, pretrained_classes: int, num_classes: int, new_head: bool) -> None:
    if pretrained_classes != num_classes and not new_head:
        raise UserError(
            f"The published weights of {name} have {pretrained_classes} classes, but the data have "
            f"{num_classes}."
        )


def _last_linear(model: nn.Module) -> nn.Linear:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        name = type(model).__name__
        raise UserError(f"{name} has no linear layer to take pooled features from.")
    return layers[-1]


def _head(model: nn.Module) -> nn.Module:
    return model.linear_layer() if isinstance(model, StagedClassifier) else _last_linear(model)


@torch.no_grad()
def permute_classes(model: nn.Module, order: Sequence[int]) -> None:
    """Reorder the outputs of a model's last linear layer: class i is then that of order[i].

    Raises:
        UserError: the model has no linear layer.
    """
    for parameter in _head(model).parameters():
        parameter.copy_(parameter[list(order)])


@torch.no_grad()
def scale_logits(model: nn.Module, factor: float) -> None:
    """Multiply weight and bias of a model's last linear layer, and so its logits, by a factor.

    Raises:
        UserError: the model has no linear layer.
    """
    for parameter in _head(model).parameters():
        parameter.mul_(factor)


def published_normalisation(model: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and standard deviation that published weights expect, for values in [0, 1].

    Args:
        model: a model of timm or torchvision, with its published weights.
    """
    if "pretrained_cfg" in vars(model):  # a model of timm
        return model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    return IMAGENET_MEAN, IMAGENET_STD


def features_of(
    model: nn.Module, images: Tensor, layers: Sequence[str] = (), *, preactivations: bool = False
) -> Outputs:
    """Return a classifier's logits and features.

    Args:
        images: (N, 3, H, W).
        layers: for a model that is not a StagedClassifier: names of the modules whose output maps
            are its features, both before and after the activation. The input of its last linear
            layer is the pooled features.
        preactivations: also return the features before the activation.

    Raises:
        UserError: a module of `layers` does not exist or does not output maps, or none is named.
    """
    if isinstance(model, StagedClassifier):
        return model.forward_features(images, preactivations=preactivations)
    modules = dict(model.named_modules())
    unknown = [name for name in layers if name not in modules]
    if unknown or not layers:
        some = [name for name, _ in model.named_children()]
        raise UserError(
            f"{type(model).__name__}: LAYERS must name the modules whose maps are compared, the "
            f"stem first, not {unknown[0] if unknown else '()'}. Some modules: {', '.join(some)}."
        )
    linear = _last_linear(model)
    with record(linear=linear, **{f"layer{i}": modules[x] for i, x in enumerate(layers)}) as calls:
        logits = model(images)
    maps = [calls[f"layer{i}"][0].output for i in range(len(layers))]
    for name, x in zip(layers, maps, strict=True):
        if not (isinstance(x, torch.Tensor) and x.dim() == 4):
            raise UserError(f"{type(model).__name__}: {name} outputs no map (N, channels, H, W).")
    return Outputs(logits, maps, maps, calls["linear"][0].args[0])


def pooled_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a classifier's logits (N, C) and the input of its last linear layer, (N, D).

    Raises:
        UserError: the model has no linear layer.
    """
    with record(linear=_head(model)) as calls:
        logits = model(images)
    return logits, calls["linear"][0].args[0].flatten(1)
