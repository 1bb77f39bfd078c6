"""Checkpointers that write files atomically, load without running code, and check what fits."""

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .finite import check_finite
from .foreign import convert_pickle, convert_pycls, select_network, unpack_container
from .safe_pickle import load_pickle, load_pth
from .torchvision_weights import (
    check_input,
    check_input_and_stride,
    convert_torchvision,
    is_torchvision,
)

# Key prefixes of modules that train beside the student and are no part of it; the second is that of
# the files of older versions.
ADAPTERS, OLD_ADAPTERS = "adapters.", "helpers."


class SafeCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that never unpickles code and writes files atomically.

    It also loads torchvision's ResNets and MobileNetV2, by name (torchvision://resnet18) or from a
    local file, timm's models by name (timm://regnetx_004), either network of a file that holds
    teacher and student, and files of other training codes (`.foreign`). It raises if no weight of a
    file fits the model, where the stock one only warns. It saves the student alone as "model".
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        side: str = "student",
        class_names: Sequence[str] = (),
        **kwargs,
    ):
        """
        Args:
            side: "student" or "teacher", the network to load from a file that holds both.
            class_names: class names of the data, which are saved with the weights.
        """
        super().__init__(model, save_dir, **kwargs)
        self.path_manager = _AtomicPathManager()
        self.side, self.class_names = side, list(class_names)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save as the stock checkpointer does, without the modules under ADAPTERS."""
        state = self.model.state_dict()
        for key in [key for key in state if key.startswith(ADAPTERS)]:
            del state[key]
        if self.class_names:
            kwargs["class_names"] = self.class_names
        super().save(name, model=state, **kwargs)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load as the stock checkpointer does.

        Raises:
            UserError: the file is missing, broken or unsafe, or no weight of it fits the model.
        """
        try:
            return super().load(path, *args, **kwargs)
        except UserError:
            raise
        except (AssertionError, OSError, ValueError) as error:
            if "parameter group" in str(error):  # raised by torch's optimizers
                raise UserError(_other_parameters_message(path)) from error
            raise UserError(f"{path} cannot be loaded: {error}") from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume or load as the stock checkpointer does; log that a resumed run ignores `path`."""
        if resume and path and self.has_checkpoint():
            newest = self.get_checkpoint_file()
            self.logger.info(f"--resume: continuing from {newest}; {path} is not read")
        return super().resume_or_load(path, resume=resume)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return convert_pickle(load_pickle(filename))
        if filename.endswith(".pyth"):
            return convert_pycls(load_pth(filename))
        checkpoint = super()._load_file(filename)
        ours = self.model.state_dict()
        theirs = {
            k: v
            for k, v in checkpoint["model"].items()
            if not k.startswith((ADAPTERS, OLD_ADAPTERS))
        }
        checkpoint["model"] = theirs = select_network(theirs, self.side, ours)
        is_detector = any(key.startswith("backbone.") for key in ours)
        if is_detector and is_torchvision(theirs):
            check_input_and_stride(self.model, filename)
            checkpoint["model"] = convert_torchvision(theirs)
            checkpoint["matching_heuristics"] = True
        if "pixel_mean" in checkpoint:  # a file that timm:// was resolved to
            pixels = checkpoint["pixel_mean"], checkpoint["pixel_std"]
            check_input(self.model, f"{filename} holds timm's", *pixels)
        return checkpoint

    def _torch_load(self, filename: str) -> dict[str, Any]:
        return unpack_container(load_pth(filename))

    def _log_incompatible_keys(self, incompatible) -> None:
        """Log incompatible keys as the stock checkpointer does; raise if no key is compatible."""
        kept = [key for key in incompatible.missing_keys if not key.startswith(ADAPTERS)]
        incompatible.missing_keys[:] = kept
        names = {n for n, _ in self.model.named_parameters() if not n.startswith(ADAPTERS)}
        if names <= set(incompatible.missing_keys):
            raise UserError(
                f"{self._parsed_url_during_load.geturl()} holds no weight of this model.\n"
                f"  in the file only: {_shorten(incompatible.unexpected_keys, 3)}\n"
                f"  in the model: {_shorten(sorted(names), 3)}"
            )
        super()._log_incompatible_keys(incompatible)


class StudentWriter(SafeCheckpointer):
    """SafeCheckpointer of additional student files, from which no run is resumed."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Do nothing: the run's own checkpointer writes last_checkpoint."""


class _StrictCheckpointer(SafeCheckpointer):
    """SafeCheckpointer that stores the incompatible keys instead of logging them."""

    def _log_incompatible_keys(self, incompatible) -> None:
        self.incompatible = incompatible


def _other_parameters_message(path: str) -> str:
    return (
        f"{path} cannot be resumed: its optimizer trains other parameters than this run, because "
        "of another DISTILL.METHODS, FREEZE_AT or norm. Resume with the settings of that run, or "
        "start a new run in another OUTPUT_DIR from its weights (MODEL.WEIGHTS)."
    )


def load_strictly(
    model: nn.Module, path: str, *, key: str, side: str = "student"
) -> tuple[str, ...]:
    """Load weights that must fit `model` exactly.

    Args:
        path: any checkpoint that Detectron2 reads, .pth or .pkl, local or a URL.
        key: configuration key of the path, for messages.
        side: "student" or "teacher", the network to load from a file that holds both.

    Returns:
        The class names in the file, empty if it has none.

    Raises:
        UserError: the file is missing, broken or unsafe; weights are missing, unexpected or wrongly
            shaped, and the message lists them; or a weight is not finite.
    """
    if not path:
        raise UserError(f"{key} is empty: name a checkpoint.")
    checkpointer = _StrictCheckpointer(model, side=side)
    try:
        rest = checkpointer.load(path, checkpointables=[])
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    incompatible = checkpointer.incompatible
    wrong = {name for name, *_ in incompatible.incorrect_shapes}
    problems = {
        "missing": [name for name in incompatible.missing_keys if name not in wrong],
        "unexpected": incompatible.unexpected_keys,
        "wrongly shaped": [
            f"{name} {there} in the file, {here} in the model"
            for name, there, here in incompatible.incorrect_shapes
        ],
    }
    lines = [f"  {problem}: {_shorten(items)}" for problem, items in problems.items() if items]
    if lines:
        raise UserError("\n".join([f"{key} does not fit its model: {path}", *lines]))
    check_finite(model.state_dict().items(), f"{key}: {path}")
    return tuple(rest.get("class_names", ()))


def _shorten(items: Iterable[str], most: int = 20) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{len(items)} ({', '.join(items[:most])}{more})"


class _AtomicPathManager:
    """PathManager that writes files atomically."""

    def __getattr__(self, name: str) -> Any:
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any):
        return (
            write_atomically(path, mode) if "w" in mode else PathManager.open(path, mode, **kwargs)
        )


def last_checkpoint(output_dir: str) -> str:
    """Return the path of the newest checkpoint of a run.

    Raises:
        UserError: the folder has none.
    """
    checkpointer = SafeCheckpointer(nn.Module(), output_dir)
    if not checkpointer.has_checkpoint():
        raise UserError(f"{output_dir} holds no checkpoint of an earlier run.")
    return checkpointer.get_checkpoint_file()
