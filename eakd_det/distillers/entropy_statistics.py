"""Statistics of entropies and EA weights, logged beside Detectron2's own metrics."""

import torch
from torch import Tensor

from eakd_det.losses import combine_entropies

from .batch import LogitPair

LOG_PERIOD = 20  # iterations; DefaultTrainer writes its metrics at this period
PARTS = ("foreground", "background", "images")  # of a detector's samples; of a classifier's
COLUMNS = ("teacher_entropy", "student_entropy", "w_ea", "w_ea_p10", "w_ea_p90")


@torch.no_grad()
def entropy_statistics(
    pairs: list[LogitPair], entropies: list[tuple[Tensor, Tensor]], *, bound: float | None
) -> dict[str, float]:
    """Return mean entropies (nats) and mean, 10th and 90th percentile of w_EA, by part.

    w_EA is that of the samples' entropies, in every mode and also of background that has a weight
    of its own.

    Args:
        pairs: their samples are taken together. The parts are foreground and background, or the
            images, if there is no background.
        entropies: (R,) entropies of student and teacher in each pair.
        bound: that of `combine_entropies`.

    Returns:
        "distill/<part>/<column>" -> value; a part without samples is left out.
    """
    values = torch.cat(
        [
            _columns(*of_both, pair.num_outcomes, bound)
            for pair, of_both in zip(pairs, entropies, strict=True)
        ],
        dim=1,
    )
    if not pairs[0].has_background:
        return _part_statistics({"images": values})
    foreground = torch.cat([pair.is_foreground for pair in pairs])
    return _part_statistics(
        {"foreground": values[:, foreground], "background": values[:, ~foreground]}
    )


def _columns(
    student_entropy: Tensor, teacher_entropy: Tensor, num_outcomes: int, bound: float | None
) -> Tensor:
    """Return (3, R): the entropies of teacher and student, and w_EA."""
    weight = combine_entropies(student_entropy, teacher_entropy, num_outcomes, bound)
    return torch.stack([teacher_entropy, student_entropy, weight])


def _part_statistics(parts: dict[str, Tensor]) -> dict[str, float]:
    """Compute `entropy_statistics` from the `_columns` of each part."""
    names: list[str] = []
    rows: list[Tensor] = []
    for part, chosen in parts.items():
        if chosen.shape[1]:
            quantiles = torch.quantile(chosen[2], chosen.new_tensor([0.1, 0.9]))
            rows.append(torch.cat([chosen.mean(dim=1), quantiles]))
            names.extend(f"distill/{part}/{column}" for column in COLUMNS)
    return dict(zip(names, torch.cat(rows).tolist(), strict=True)) if rows else {}
