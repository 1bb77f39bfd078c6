"""Checkpoints: written whole or not at all, read without running code, strict where it matters."""

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

from .finite import refuse_non_finite
from .safe_pickle import load_pickle, load_pth
from .torchvision_weights import check_suits, convert_torchvision, is_torchvision

# Prefixes of keys of a model's state: modules that train beside the student and are no part of it;
# the second is that of the files of older versions.
ADAPTERS, OLD_ADAPTERS = "adapters.", "helpers."
# In the files of ReviewKD and mdistiller: both networks (a student's keys may have no prefix), and
# fusion modules.
MERGED_STUDENT, MERGED_TEACHER, MERGED_ADAPTERS = "student.", "teacher.", "kd_trans."
# Where training codes keep the weights in a file; and what wraps the model puts before all keys:
# DataParallel, torch.compile, Lightning.
CONTAINERS = ("model", "state_dict", "net", "model_state_dict", "model_state")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")


class SafeCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that never unpickles code and never leaves half a file behind.

    It also reads torchvision's ResNets and MobileNetV2, by name (torchvision://resnet18) or from a
    local file, either side of a file that holds teacher and student, and weights as other training
    codes keep them (CONTAINERS, WRAPPERS). It refuses a file of which nothing fits the model, where
    the stock one only warns. What it saves as "model" is the student alone.
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
            side: "student" or "teacher": which one to read of a file that holds both.
            class_names: of the data, which what is saved keeps.
        """
        super().__init__(model, save_dir, **kwargs)
        self.path_manager = _AtomicPathManager()
        self.side, self.class_names = side, list(class_names)

    def save(self, name: str, **kwargs: Any) -> None:
        """As the stock one, without adapters."""
        state = self.model.state_dict()
        for key in [key for key in state if key.startswith(ADAPTERS)]:
            del state[key]
        if self.class_names:
            kwargs["class_names"] = self.class_names
        super().save(name, model=state, **kwargs)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the stock one.

        Raises:
            UserError: the file is missing, broken or unsafe, or nothing of it fits the model.
        """
        try:
            return super().load(path, *args, **kwargs)
        except UserError:
            raise
        except (AssertionError, OSError, ValueError) as error:
            if "parameter group" in str(error):  # of torch's optimizers
                raise UserError(_of_other_parameters(path)) from error
            raise UserError(f"{path} cannot be loaded: {error}") from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As the stock one; it says so where a resumed run does not read `path`."""
        if resume and path and self.has_checkpoint():
            newest = self.get_checkpoint_file()
            self.logger.info(f"--resume: {newest} goes on; {path}, for a new run, is not read")
        return super().resume_or_load(path, resume=resume)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return _from_pickle(load_pickle(filename))
        if filename.endswith(".pyth"):
            return _from_pycls(load_pth(filename))
        checkpoint = super()._load_file(filename)
        ours = self.model.state_dict()
        checkpoint["model"] = theirs = _side_of(checkpoint["model"], self.side, ours)
        is_detector = any(key.startswith("backbone.") for key in ours)
        if is_detector and is_torchvision(theirs):
            check_suits(self.model, filename)
            checkpoint["model"] = convert_torchvision(theirs)
            checkpoint["matching_heuristics"] = True
        return checkpoint

    def _torch_load(self, filename: str) -> dict[str, Any]:
        data = load_pth(filename)
        name = next((name for name in CONTAINERS if isinstance(data.get(name), dict)), None)
        return data if name in (None, "model") else {"model": data[name]}

    def _log_incompatible_keys(self, incompatible) -> None:
        """Log what does not fit, as the stock one, if anything else does."""
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
    """SafeCheckpointer of a student alone, from which no run is resumed."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """The run's own checkpointer says which is its last."""


class _StrictCheckpointer(SafeCheckpointer):
    """SafeCheckpointer that keeps what does not fit, in place of a log."""

    def _log_incompatible_keys(self, incompatible) -> None:
        self.incompatible = incompatible


def _of_other_parameters(path: str) -> str:
    return (
        f"{path} cannot be resumed: its optimizer trains other parameters than this run, as "
        "another DISTILL.METHODS, FREEZE_AT or norm makes it. Resume with the settings of the run, "
        "or start a new one, in another OUTPUT_DIR, from its weights (MODEL.WEIGHTS)."
    )


def load_strictly(
    model: nn.Module, path: str, *, key: str, side: str = "student"
) -> tuple[str, ...]:
    """Load weights that must fit `model` exactly.

    Args:
        path: any checkpoint that Detectron2 reads: .pth or .pkl, local or a URL.
        key: the configuration key that names it, for the message.
        side: "student" or "teacher": which one to read of a file that holds both.

    Returns:
        The names of the classes, if the file has them.

    Raises:
        UserError: the file is missing, broken or unsafe, or weights are missing, unexpected or
            wrongly shaped, all of which are listed; or one is not finite.
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
    faults = {
        "missing": [name for name in incompatible.missing_keys if name not in wrong],
        "unexpected": incompatible.unexpected_keys,
        "wrongly shaped": [
            f"{name} {there} in the file, {here} in the model"
            for name, there, here in incompatible.incorrect_shapes
        ],
    }
    lines = [f"  {fault}: {_shorten(items)}" for fault, items in faults.items() if items]
    if lines:
        raise UserError("\n".join([f"{key} does not fit its model: {path}", *lines]))
    refuse_non_finite(model.state_dict().items(), f"{key}: {path}")
    return tuple(rest.get("class_names", ()))


def _shorten(items: Iterable[str], most: int = 20) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{len(items)} ({', '.join(items[:most])}{more})"


def _side_of(state: dict[str, Any], side: str, ours: Iterable[str]) -> dict[str, Any]:
    """Select teacher or student of a file that holds both, under the model's own names.

    Adapters are left out, and what wrapped the model before its keys, unless `ours`, the model's
    keys, begin so.
    """
    state = {
        key: value for key, value in state.items() if not key.startswith((ADAPTERS, OLD_ADAPTERS))
    }
    wrappers = [prefix for prefix in WRAPPERS if not any(key.startswith(prefix) for key in ours)]
    state = _unwrapped(state, wrappers)
    if any(key.startswith((MERGED_STUDENT, MERGED_TEACHER)) for key in ours):
        return state
    asked = MERGED_TEACHER if side == "teacher" else MERGED_STUDENT
    for prefix in (asked, MERGED_STUDENT):  # a student may become the teacher of another run
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if found:
            return _unwrapped(found, wrappers)
    other = (MERGED_TEACHER, MERGED_ADAPTERS)
    has_teacher = any(key.startswith(MERGED_TEACHER) for key in state)
    return {k: v for k, v in state.items() if not (has_teacher and k.startswith(other))}


def _unwrapped(state: dict[str, Any], wrappers: Sequence[str]) -> dict[str, Any]:
    """The weights without the prefixes that all their keys share, in any order."""
    shared = next((p for p in wrappers if state and all(k.startswith(p) for k in state)), None)
    if shared is None:
        return state
    return _unwrapped({k.removeprefix(shared): v for k, v in state.items()}, wrappers)


def _from_pickle(data: dict[str, Any]) -> dict[str, Any]:
    if "model" in data:
        return data
    # Detectron 1 and its ImageNet models: bare blobs under Caffe2's names.
    blobs = data.get("blobs", data)
    blobs = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}


def _from_pycls(data: dict[str, Any]) -> dict[str, Any]:
    state = {k: v for k, v in data["model_state"].items() if not k.endswith("num_batches_tracked")}
    return {"model": state, "__author__": "pycls", "matching_heuristics": True}


class _AtomicPathManager:
    """PathManager whose written files appear under their name when they are complete."""

    def __getattr__(self, name: str) -> Any:
        return getattr(PathManager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any):
        return (
            write_atomically(path, mode) if "w" in mode else PathManager.open(path, mode, **kwargs)
        )


def last_checkpoint(output_dir: str) -> str:
    """Path of the newest checkpoint of a run.

    Raises:
        UserError: the folder has none.
    """
    checkpointer = SafeCheckpointer(nn.Module(), output_dir)
    if not checkpointer.has_checkpoint():
        raise UserError(f"{output_dir} holds no checkpoint of an earlier run.")
    return checkpointer.get_checkpoint_file()
