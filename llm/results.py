"""Files with the figures of a run; nothing here imports transformers."""

from statistics import mean
from typing import Any

TRAIN_RESULT = "train_result.json"  # of the training, the last file that it writes
SCORES = "rouge.json"  # of the evaluation, with the answers
TITLES = {"rougeL": "ROUGE-L", "exact": "exact match"}  # metrics, in percent


def figures_of(scores: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Return the figures of an evaluation as result.json has them.

    Args:
        scores: set -> metric -> one figure in percent for each seed of sampling.

    Returns:
        "METRIC" -> mean over the sets, and "METRIC SET" -> mean over the seeds.
    """
    figures = {}
    for metric in TITLES:
        of_sets = {f"{metric} {name}": mean(scores[name][metric]) for name in scores}
        figures |= {metric: mean(of_sets.values()), **of_sets}
    return figures


def titles(keys: list[str]) -> dict[str, str]:
    """Return those of the keys that are figures -> their titles, as "ROUGE-L Dolly"."""
    found = {key: key.partition(" ") for key in keys}
    return {
        key: f"{TITLES[metric]} {name}".strip()
        for key, (metric, _, name) in found.items()
        if metric in TITLES
    }


def as_series(state: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return metric -> [(iteration from 0, value)] of Trainer's trainer_state.json."""
    series = {}
    for entry in state.get("log_history", []):
        for name, value in entry.items():
            if name != "step":
                name = "total_loss" if name == "loss" else name
                series.setdefault(name, []).append((entry["step"] - 1, value))
    return series
