from eakd_det.benchmark.tables import COLUMNS, table

ON_GPU = {
    "stock_step": {
        "seconds": 0.1475,
        "host_seconds": 0.1401,
        "busy": 0.612,
        "launches": 3120.0,
        "kernels": 3300.0,
        "allocated_mib": 5000.0,
        "reserved_mib": 7800.0,
        "above_mib": 4400.4,
    },
    "distill_step": {
        "seconds": 0.1956,
        "host_seconds": 0.19,
        "busy": 0.7,
        "launches": 5000.0,
        "kernels": 5100.0,
        "allocated_mib": 7481.0,
        "reserved_mib": 14106.0,
        "above_mib": 6000.0,
    },
    "teacher_weights": {"allocated_mib": 232.0, "reserved_mib": 232.0},
}


def _cells(text):
    """Cells of the lines of a table, without the rule below the headings, by their columns."""
    heading, rule, *lines = text.splitlines()
    starts = [0, *(i + 2 for i in range(len(rule)) if rule[i : i + 2] == "  ")]
    ends = [*(start - 2 for start in starts[1:]), None]
    return [
        [line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in (heading, *lines)
    ]


def test_the_columns_of_a_gpu():
    notes = {"distill_step": "+ TEACHER.FAST True"}
    headings, stock, distilled, weights = _cells(table("steps", ON_GPU, "stock_step", notes))
    assert headings == [
        *("steps", "ms", "of stock_step", "host ms", "GPU busy %", "launches", "kernels"),
        *("allocated MiB", "of stock_step", "reserved MiB", "of stock_step"),
        *("above inputs MiB", "options"),
    ]
    assert stock == [
        *("stock_step", "147.50", "1.000", "140.10", "61", "3120", "3300"),
        *("5000", "1.000", "7800", "1.000", "4400", ""),
    ]
    assert distilled == [
        *("distill_step", "195.60", "1.326", "190.00", "70", "5000", "5100"),
        *("7481", "1.496", "14106", "1.808", "6000", "+ TEACHER.FAST True"),
    ]
    assert weights == ["teacher_weights", *[""] * 6, "232", "0.046", "232", "0.030", "", ""]


def test_columns_that_a_cpu_does_not_have_are_left_out():
    rows = {
        "a": {"seconds": 1.0, "operations": 1424},
        "b": {"seconds": 2.0, "operations": 2, "peak_mib": 9.6},
    }
    headings, first, second = _cells(table("steps", rows, "a"))
    assert headings == ["steps", "ms", "of a", "operations", "peak MiB"]
    assert first == ["a", "1000.00", "1.000", "1424", ""]
    assert second == ["b", "2000.00", "2.000", "2", "10"]


def test_every_column_of_the_given_figures_has_a_heading():
    assert {name for row in ON_GPU.values() for name in row} <= set(COLUMNS)
