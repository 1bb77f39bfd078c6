"""Layouts of the checkpoint files of other training codes."""

from collections.abc import Iterable, Sequence
from typing import Any

# Key prefixes in the files of ReviewKD and mdistiller, which hold both networks (a student's keys
# may have no prefix) and the fusion modules.
MERGED_STUDENT, MERGED_TEACHER, MERGED_ADAPTERS = "student.", "teacher.", "kd_trans."
# Keys under which training codes store the weights, and prefixes that wrappers of the model
# (DataParallel, torch.compile, Lightning) put before all keys.
CONTAINERS = ("model", "state_dict", "net", "model_state_dict", "model_state")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")


def unpack_container(data: dict[str, Any]) -> dict[str, Any]:
    """Return a file's content with the weights under "model", if a known key holds them."""
    name = next((name for name in CONTAINERS if isinstance(data.get(name), dict)), None)
    return data if name in (None, "model") else {"model": data[name]}


def select_network(state: dict[str, Any], side: str, ours: Iterable[str]) -> dict[str, Any]:
    """Select teacher or student of a file that holds both, under the model's own names.

    Prefixes of wrappers are removed unless `ours`, the model's keys, begin with them.

    Args:
        state: weights by name.
        side: "student" or "teacher".
    """
    wrappers = [prefix for prefix in WRAPPERS if not any(key.startswith(prefix) for key in ours)]
    state = _unwrap(state, wrappers)
    if any(key.startswith((MERGED_STUDENT, MERGED_TEACHER)) for key in ours):
        return state
    wanted = MERGED_TEACHER if side == "teacher" else MERGED_STUDENT
    for prefix in (wanted, MERGED_STUDENT):  # the student of one run may be another's teacher
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if found:
            return _unwrap(found, wrappers)
    other = (MERGED_TEACHER, MERGED_ADAPTERS)
    has_teacher = any(key.startswith(MERGED_TEACHER) for key in state)
    return {k: v for k, v in state.items() if not (has_teacher and k.startswith(other))}


def _unwrap(state: dict[str, Any], wrappers: Sequence[str]) -> dict[str, Any]:
    """Remove the prefixes that all keys share, in any order."""
    shared = next((p for p in wrappers if state and all(k.startswith(p) for k in state)), None)
    if shared is None:
        return state
    return _unwrap({k.removeprefix(shared): v for k, v in state.items()}, wrappers)


def convert_pickle(data: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a .pkl, which may be that of Detectron 1 with Caffe2's names."""
    if "model" in data:
        return data
    blobs = data.get("blobs", data)  # ImageNet models have the blobs at the top
    blobs = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
    return {"model": blobs, "__author__": "Caffe2", "matching_heuristics": True}


def convert_pycls(data: dict[str, Any]) -> dict[str, Any]:
    """Convert the content of a .pyth file of pycls."""
    state = {k: v for k, v in data["model_state"].items() if not k.endswith("num_batches_tracked")}
    return {"model": state, "__author__": "pycls", "matching_heuristics": True}
