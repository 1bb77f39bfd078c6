"""Names of methods in tables, from a config and the path of its file."""

from pathlib import Path
from typing import Any

MODES = ("matched", "teacher", "normalized")  # methods EA-X that end so have that DISTILL.EA.MODE
CONTROLS = MODES[:2]  # those that EA-X is compared with, but X is not
ALONE = ("Teacher", "Student")  # methods of a run that is not distilled


def method_name(distill: dict[str, Any]) -> str:
    """Return the name of a node DISTILL: "KD", "EA-DKD+LS", "EA-KD-matched"; empty for none."""
    methods = distill["METHODS"]
    if not methods:
        return ""
    name = "+".join(methods)
    if any(distill[method].get("STANDARDIZE", False) for method in methods):
        name += "+LS"
    if distill["EA"]["ENABLED"]:
        mode = distill["EA"]["MODE"]
        name = f"EA-{name}" + (f"-{mode}" if mode != "full" else "")
    return name


def method_of(distill: dict[str, Any], path: Path, *words: str) -> str:
    """Return the method of a run, as "EA-KD+LS", "Student", or "EA-KD-T2" for "EA-KD-T2.yaml".

    Args:
        distill: the node DISTILL of its config, which names the method.
        path: of its config file. Its name distinguishes variants of a method, and teachers from
            students.
        words: other parts of the path that may do so.
    """
    words = (*words, path.stem)
    is_teacher = any(addition(word, "Teacher") is not None for word in words)
    method = method_name(distill) or ("Teacher" if is_teacher else "Student")
    found = (addition(word, method) for word in words)
    variant = next((more for more in found if more is not None), "")
    return method if variant[1:] in MODES else method + variant


def base_of(method: str) -> str:
    """Return the X of EA-X and of EA-X-<mode>; other methods as they are."""
    name = method.removeprefix("EA-")
    if name == method:
        return method
    return next((name.removesuffix(f"-{x}") for x in MODES if name.endswith(f"-{x}")), name)


def addition(text: str, name: str) -> str | None:
    """Return the rest of a text after a name, as "-T2" for "ea-kd-T2" and "EA-KD".

    A file is called "KD-LS" where a table has "KD+LS". None if the text begins otherwise.
    """
    rest = text[len(name) :]
    begins = text.lower().replace("+", "-").startswith(name.lower().replace("+", "-"))
    return rest if begins and (not rest or rest.startswith("-")) else None


def is_part(network: str, models: str) -> bool:
    """Return whether a network is the student of classifiers, or of detectors, called `models`.

    Classifiers are named <teacher>_<student>, detectors and language models <student>-<teacher>.
    """
    return models.startswith(f"{network}-") or models.endswith(f"_{network}")


def tell_apart(rows: list[dict[str, Any]], config: str, label: str = "") -> None:
    """Rename the method of rows whose name several configs share.

    Args:
        rows: with "dataset", "models" and "method".
        config: key of the rows that identifies their config; it is appended to the method.
        label: key of a text that takes the method's place instead.
    """
    configs = {}
    for row in rows:
        configs.setdefault(_name(row), set()).add(row[config])
    for row in [row for row in rows if len(configs[_name(row)]) > 1]:
        row["method"] = row[label] if label else f"{row['method']} ({row[config]})"


def _name(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["dataset"], row["models"], row["method"]
