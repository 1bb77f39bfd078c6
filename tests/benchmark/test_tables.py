from eakd_det.benchmark.tables import COLUMNS, cells, table

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


def test_the_columns_of_a_gpu():
    notes = {"distill_step": "+ TEACHER.FAST True"}
    headings, stock, distilled, weights = cells(ON_GPU, "stock_step", notes)
    assert headings == [
        *("", "ms", "of\nstock_step", "host\nms", "GPU\nbusy %", "launches", "kernels"),
        *("allocated\nMiB", "of\nstock_step", "reserved\nMiB", "of\nstock_step"),
        *("MiB above\ninputs", "options"),
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
    headings, first, second = cells(rows, "a")
    assert headings == ["", "ms", "of\na", "operations", "peak\nMiB"]
    assert first == ["a", "1000.00", "1.000", "1424", ""]
    assert second == ["b", "2000.00", "2.000", "2", "10"]


def test_the_text_is_narrow_and_has_a_title():
    title, blank, *lines = table("one training step", ON_GPU, "stock_step").splitlines()
    assert (title, blank) == ("one training step", "")
    assert max(map(len, lines)) < 150
    assert [line.split()[0] for line in lines[-3:]] == list(ON_GPU)


def test_every_column_of_the_given_figures_has_a_heading():
    assert {name for row in ON_GPU.values() for name in row} <= set(COLUMNS)
