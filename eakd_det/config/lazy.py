"""Distillation in Detectron2's LazyConfig."""

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from eakd_det.distillers import DISTILLERS, scalar_defaults
from eakd_det.distillers.ea import NO_EA
from eakd_det.losses import entropy_weight
from eakd_det.utils.errors import UserError


def distillation(
    *,
    config_file: str,
    weights: str,
    methods: dict[str, dict[str, Any]],
    ea: dict[str, Any] | None = None,
    levels: Sequence[str] = (),
    features: Sequence[str | Sequence[str]] = (),
    dataset: str = "",
    classes: Sequence[str | Sequence[str]] = (),
) -> DictConfig:
    """Build the argument `distillation` of a distilled meta-architecture as a lazy config.

    Args:
        config_file, weights: config and weights of the teacher; see `make_teacher`.
        methods: name in DISTILLERS -> options that differ from their defaults.
        ea: options of the EA weight (mode, temperature, bound, background); None turns it off.
        levels: names of the student's feature maps that are compared; all if empty.
        features: names of modules whose outputs are compared in place of the FPN's levels: pairs of
            the student's and the teacher's, or one name for both.
        dataset: dataset whose class names are shown in the pictures of vis_period, and which
            `classes` names.
        classes: names of the classes that student and teacher have in common, or pairs of the
            student's and the teacher's name; without any, all in the same order.

    Raises:
        UserError: a method or an option does not exist.
    """
    temperature = scalar_defaults(entropy_weight)["temperature"]
    defaults = {**NO_EA, "enabled": ea is not None, "temperature": temperature}
    _check_names("methods", methods, DISTILLERS)
    for name, options in methods.items():
        _check_names(f"methods, {name}", options, ["weight", *DISTILLERS[name].defaults])
    _check_names("ea", ea or {}, defaults)
    return L(_settings)(
        teacher=L("eakd_det.modeling.teacher.build.make_teacher")(
            config_file=config_file, weights=weights
        ),
        methods={
            name: {"weight": 1.0, **DISTILLERS[name].defaults, **options}
            for name, options in methods.items()
        },
        ea={**defaults, **(ea or {})},
        levels=list(levels),
        features=list(features),
        dataset=dataset,
        classes=[x if isinstance(x, str) else list(x) for x in classes],
    )


def _check_names(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{where}: {name!r} is unknown; choose from {', '.join(known)}.")


def _settings(**settings: Any) -> dict[str, Any]:
    return settings


def remove_distillation(model: DictConfig) -> None:
    """Turn the node `model` of a Python config into its stock architecture, in place."""
    if model.pop("distillation", None) is not None:
        model._target_ = node_class(model).stock


def node_class(node: DictConfig) -> type:
    """Return the class that a node of a Python config instantiates."""
    return locate(node._target_) if isinstance(node._target_, str) else node._target_


def load_lazy_config(path: str, overrides: Sequence[str]) -> DictConfig:
    """Load a Python config with "key=value" overrides."""
    return LazyConfig.apply_overrides(LazyConfig.load(path), list(overrides))
