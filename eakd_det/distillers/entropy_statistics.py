"""What a run logs about entropies and weights, beside Detectron2's own metrics."""

import torch
from torch import Tensor

from eakd_det.losses import combine_entropies

from .methods import Head

LOG_PERIOD = 20  # iterations; DefaultTrainer writes its metrics at this period
PARTS = ("foreground", "background", "images")  # of a detector's samples; of a classifier's
COLUMNS = ("teacher_entropy", "student_entropy", "w_ea", "w_ea_p10", "w_ea_p90")


def head_statistics(
    heads: list[Head], entropies: list[tuple[Tensor, Tensor]], *, bound: float | None
) -> dict[str, float]:
    """`part_statistics` of the foreground and background of a detector.

    Args:
        heads: their samples are taken together.
        entropies: (R,) entropies of student and teacher in each head.
        bound: of `combine_entropies`.
    """
    values = torch.cat(
        [
            weight_columns(*pair, head.num_outcomes, bound)
            for head, pair in zip(heads, entropies, strict=True)
        ],
        dim=1,
    )
    background = torch.cat([head.labels == head.background for head in heads])
    return part_statistics(
        {"foreground": values[:, ~background], "background": values[:, background]}
    )


def weight_columns(
    student_entropy: Tensor, teacher_entropy: Tensor, num_outcomes: int, bound: float | None
) -> Tensor:
    """(3, R): the entropies of teacher and student, and w_EA."""
    weight = combine_entropies(student_entropy, teacher_entropy, num_outcomes, bound)
    return torch.stack([teacher_entropy, student_entropy, weight])


@torch.no_grad()
def part_statistics(parts: dict[str, Tensor]) -> dict[str, float]:
    """Mean entropies (nats) and mean, 10th and 90th percentile of w_EA, by part of the samples.

    Args:
        parts: one of PARTS -> its `weight_columns`.

    Returns:
        "distill/<part>/<column>" -> value; a part without samples is left out.
    """
    names, rows = [], []
    for part, chosen in parts.items():
        if chosen.shape[1]:
            quantiles = torch.quantile(chosen[2], chosen.new_tensor([0.1, 0.9]))
            rows.append(torch.cat([chosen.mean(dim=1), quantiles]))
            names.extend(f"distill/{part}/{column}" for column in COLUMNS)
    return dict(zip(names, torch.cat(rows).tolist(), strict=True)) if rows else {}
