"""Ratios that a GPU is expected to reach, from the tables of one run."""

from typing import NamedTuple

from tabulate import tabulate

from .measure import Figures

Measured = dict[str, dict[str, Figures]]  # table -> variant -> column -> figure


class Goal(NamedTuple):
    """A figure of a table in relation to others of the same table, and its upper limit.

    Attributes:
        of: variants whose sum the figure is divided by; without any, it is seconds, and the limit
            milliseconds.
    """

    text: str
    limit: float
    table: str
    variant: str
    of: tuple[str, ...] = ()
    column: str = "seconds"

    def value(self, measured: Measured) -> float | None:
        """Return the ratio, or the milliseconds; None if a figure was not measured."""
        rows = measured.get(self.table, {})
        figures = [rows.get(name, {}).get(self.column) for name in (self.variant, *self.of)]
        if None in figures:
            return None
        first, *others = figures
        return first / sum(others) if others else 1000 * first


STOCK, WITH_WEIGHTS = ("stock_step",), ("stock_step", "teacher_weights")
GOALS = (
    *(
        Goal(f"{text}, bfloat16 AMP: distilled / stock", 1.05, "detection_bfloat16", name, STOCK)
        for name, text in (("distill_step", "defaults"), ("distill_all", "all levers"))
    ),
    *(
        Goal(f"{text}, float32: distilled / stock", 1.10, "detection", name, STOCK)
        for name, text in (("distill_step", "defaults"), ("distill_all", "all levers"))
    ),
    *(
        Goal(
            f"peak {kind} memory, float32: distilled / (stock + teacher's weights)",
            1.3,
            "detection",
            "distill_step",
            WITH_WEIGHTS,
            f"{kind}_mib",
        )
        for kind in ("allocated", "reserved")
    ),
    *(
        Goal(f"the student alone, {text}: levers / stock", 0.9, table, "student_levers", STOCK)
        for text, table in (("bfloat16 AMP", "detection_bfloat16"), ("float32", "detection"))
    ),
    *(
        Goal(
            f"language models, {dtype}: {what} of EA-KL in chunks of 1024 / Liger-Kernel's KL",
            1.3,
            f"language_model_losses_{dtype}",
            "compiled_1024_ea_kl",
            ("liger_1024_kl",),
            column,
        )
        for dtype in ("float32", "bfloat16")
        for what, column in (("time", "seconds"), ("memory", "above_mib"))
    ),
    Goal("CIFAR, 64 images: ms of a step", 5.0, "classification_64", "cuda_graphs"),
)


def table_of_goals(measured: Measured) -> str:
    """Format the value and the limit of each goal whose figures were measured; empty without."""
    rows = [(goal.text, goal.value(measured), goal.limit) for goal in GOALS]
    rows = [(*row, "yes" if row[1] <= row[2] else "no") for row in rows if row[1] is not None]
    headings = ["goal", "measured", "at most", "reached"]
    return tabulate(rows, headings, floatfmt=".2f") if rows else ""
