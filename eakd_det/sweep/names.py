"""Names of runs in tables: what their config says, and what more the path of its file does."""

from pathlib import Path
from typing import Any

from .published import method_name

CONTROLS = ("matched", "teacher")  # methods that end so have that DISTILL.EA.MODE
ALONE = ("Teacher", "Student")  # methods of a run that is not distilled


def method_of(distill: dict[str, Any], path: Path, *words: str) -> str:
    """The method of a run: "EA-KD+LS", "EA-KD-matched", "Student", and "-T2" of "EA-KD-T2.yaml".

    Args:
        distill: the node DISTILL of its config, which says the method.
        path: of its config file. It tells variants of a method apart, and teachers from students,
            by its name.
        words: other parts of the path that may do so.
    """
    words = (*words, path.stem)
    is_teacher = any(addition(word, "Teacher") is not None for word in words)
    method = method_name(distill) or ("Teacher" if is_teacher else "Student")
    found = (addition(word, method) for word in words)
    variant = next((more for more in found if more is not None), "")
    return method if variant[1:] in CONTROLS else method + variant


def addition(text: str, name: str) -> str | None:
    """Rest of a text behind a name: "-T2" of "ea-kd-T2" and "EA-KD"; None if it begins otherwise.

    A file is called "KD-LS" where a table says "KD+LS".
    """
    rest = text[len(name) :]
    begins = text.lower().replace("+", "-").startswith(name.lower().replace("+", "-"))
    return rest if begins and (not rest or rest.startswith("-")) else None


def tell_apart(rows: list[dict[str, Any]], config: str) -> None:
    """Put the config behind the method of rows that several configs would have the same name.

    Args:
        rows: with "dataset", "models" and "method".
        config: the key by which rows of one config are known.
    """
    configs = {}
    for row in rows:
        configs.setdefault(_name(row), set()).add(row[config])
    for row in [row for row in rows if len(configs[_name(row)]) > 1]:
        row["method"] = f"{row['method']} ({row[config]})"


def _name(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["dataset"], row["models"], row["method"]
