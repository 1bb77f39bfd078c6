"""Feature maps of timm models: their strides, channels and layout, and what they depend on."""

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eakd_det.utils.errors import UserError
from eakd_det.utils.external_models import import_timm

LEVELS = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}  # names of Detectron2's ResNets, strides
_SIZE = (96, 160)  # of an image on which a model is tried: not square, multiples of 32


def create_features(name: str, **options: Any) -> nn.Module:
    """Build timm's features_only model, which returns a list of maps; see `timm.create_model`.

    Raises:
        UserError: timm is not installed or has no such model.
    """
    timm = import_timm(name)
    if name.startswith("swin"):  # these take images of any size only if they are built for it
        options["strict_img_size"] = False
    return timm.create_model(name, features_only=True, **options)


class FeatureMap(NamedTuple):
    """Map of a timm model.

    Attributes:
        out_index: in timm's `feature_info`.
        channels: C.
        module: name of the module that returns it.
        output: the map of one image on the meta device, with its graph.
    """

    out_index: int
    channels: int
    module: str
    output: Tensor

    def is_channels_last(self, stride: int) -> bool | None:
        """Return True for the layout (N, H, W, C); None if the size is not that of the stride."""
        size = [side // stride for side in _SIZE]
        layouts = {(1, self.channels, *size): False, (1, *size, self.channels): True}
        return layouts.get(tuple(self.output.shape))


class FeatureMaps:
    """Maps of a timm model by their stride, found by a forward pass on the meta device.

    Nothing is computed there, and no random number is drawn. Of two maps of a stride it is the
    later one.
    """

    def __init__(self, name: str):
        """
        Args:
            name: of a model, see `create_features`.

        Raises:
            UserError: there is no such model, or its maps fit no FPN: it has none, of one stride or
                of others than powers of two, or for images of one size alone.
        """
        self.name = name
        with torch.device("meta"):
            self._model = self._try(lambda: create_features(name).eval())
            info = self._model.feature_info
            self._check_strides(sorted(set(info.reduction())))
            with torch.enable_grad():
                outputs = self._try(lambda: self._model(torch.zeros(1, 3, *_SIZE)))
        rows = zip(info.out_indices, info.channels(), info.module_name(), outputs, strict=True)
        self.of_stride = {
            stride: FeatureMap(*row) for stride, row in zip(info.reduction(), rows, strict=True)
        }

    def select(self, levels: Collection[str]) -> dict[str, FeatureMap]:
        """Return the maps of some of LEVELS, finest first, as the model returns them.

        Raises:
            UserError: there is no such level, or the model has no map of its stride and size.
        """
        known = ", ".join(f"{name} (stride {stride})" for name, stride in LEVELS.items())
        for name in levels:
            if name not in LEVELS:
                raise UserError(
                    f"MODEL.FPN.IN_FEATURES: {name!r} is no level of a timm backbone; choose from "
                    f"{known}."
                )
            if LEVELS[name] not in self.of_stride:
                raise UserError(
                    f"timm:{self.name} has maps of the strides {_listed(self.of_stride)}, and none "
                    f"for {name} (stride {LEVELS[name]}) of MODEL.FPN.IN_FEATURES."
                )
            found = self.of_stride[LEVELS[name]]
            if found.is_channels_last(LEVELS[name]) is None:
                raise self._refusal(
                    f"its map of stride {LEVELS[name]} has the shape {tuple(found.output.shape)} "
                    f"for an image of {_SIZE[0]} x {_SIZE[1]} pixels"
                )
        return {name: self.of_stride[s] for name, s in LEVELS.items() if name in levels}

    def parameters_of(self, strides: Iterable[int]) -> set[str]:
        """Return the names of the parameters on which the maps of some strides depend."""
        names, parameters = zip(*self._model.named_parameters(), strict=True)
        sums = [self.of_stride[stride].output.sum() for stride in strides]
        grads = torch.autograd.grad(sums, parameters, retain_graph=True, allow_unused=True)
        return {name for name, grad in zip(names, grads, strict=True) if grad is not None}

    def first_parameters(self, level: int) -> set[str]:
        """Return the names of the parameters up to a level: 0 none, 1 the stem, 2 res2, ...

        The stem is what the last map of a stride below 4 depends on; without such a map, what
        precedes the module that returns the first one.

        Raises:
            UserError: timm does not name this module.
        """
        if level == 0:
            return set()
        strides = [stride for stride in self.of_stride if stride <= 2**level]
        if strides:
            return self.parameters_of(strides)
        first = min(self.of_stride)
        found = self.parameters_of([first])
        own = _dotted(self.of_stride[first].module)
        prefixes = own, f".model{own}", f".body{own}"  # some classes of features_only add a name
        stem = {name for name in found if not _dotted(name).startswith(prefixes)}
        if stem == found:
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT 1: timm does not tell where the stem of {self.name} "
                "ends; freeze nothing (0), or its first stage, too (2)."
            )
        return stem

    def _check_strides(self, strides: list[int]) -> None:
        if len(strides) == 1:
            raise self._refusal(
                f"its maps have the stride {strides[0]} alone, as those of a plain vision "
                "transformer; an FPN needs several. Choose a hierarchical model"
            )
        if any(stride & (stride - 1) for stride in strides):
            raise self._refusal(f"its strides are {_listed(strides)}, not powers of two")

    def _try(self, call: Any) -> Any:
        """Call a function of timm, whose models may raise anything."""
        try:
            return call()
        except UserError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self._refusal(
                f"it has no feature maps of images of any size ({reason})"
            ) from error

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"timm:{self.name} cannot be a detector's backbone: {reason}.")


def _listed(strides: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(strides)))


def _dotted(name: str) -> str:
    """Return a name with dots alone: timm's features_only models join some names by underscores."""
    return f".{name}.".replace("_", ".")
