import pytest

import classification.benchmark as classifiers
import llm.benchmark as language_models
from eakd_det.benchmark.goals import GOALS, Goal, table_of_goals
from eakd_det.benchmark.variants import SUMMARY, gpu_variants

MEASURED = {
    "detection": {
        "stock_step": {"seconds": 0.1475, "allocated_mib": 5000.0, "reserved_mib": 7800.0},
        "distill_step": {"seconds": 0.1956, "allocated_mib": 7481.0, "reserved_mib": 9000.0},
        "teacher_weights": {"allocated_mib": 232.0, "reserved_mib": 232.0},
    },
}


def test_a_ratio_and_a_time():
    of_time = Goal("", 1.1, "detection", "distill_step", ("stock_step",))
    assert of_time.value(MEASURED) == pytest.approx(195.6 / 147.5)
    both = ("stock_step", "teacher_weights")
    of_memory = Goal("", 1.3, "detection", "distill_step", both, "allocated_mib")
    assert of_memory.value(MEASURED) == pytest.approx(7481 / 5232)
    assert Goal("", 5.0, "detection", "stock_step").value(MEASURED) == pytest.approx(147.5)


def test_what_was_not_measured_has_no_line():
    lines = table_of_goals(MEASURED).splitlines()[2:]
    assert [line.split()[-3:] for line in lines if line] == [
        ["1.33", "1.10", "no"],
        ["1.43", "1.30", "no"],
        ["1.12", "1.30", "yes"],
    ]
    assert table_of_goals({}) == ""


def test_the_goals_name_variants_that_are_measured():
    dtypes = ("float32", "bfloat16")
    of_losses = {*language_models.VARIANTS, *language_models.GPU_VARIANTS}
    of_classifiers = {*classifiers.VARIANTS, *classifiers.GPU_VARIANTS}
    known = {
        "detection": {*SUMMARY, "teacher_weights"},
        "detection_bfloat16": {*gpu_variants(with_compiled=True)},
        **{f"language_model_losses_{x}": {*of_losses, "liger_1024_kl"} for x in dtypes},
        **{f"classification_{size}": of_classifiers for size in classifiers.SIZES},
    }
    for goal in GOALS:
        assert {goal.variant, *goal.of} <= known[goal.table], goal
