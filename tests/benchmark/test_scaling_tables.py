from eakd_det.benchmark.scaling_model import Bucket, Reduction
from eakd_det.benchmark.scaling_tables import MEASURED, scaling_tables


def test_tables():
    results = {
        "reduction": Reduction([Bucket(80_000_000, 0.5), Bucket(20_000_000, 0.9)], 0.9),
        "step_seconds": 0.164,
        "checkpoint_bytes": 2e8,
        "losses_bytes": 149,
        "detections_bytes": 3.3e7,
        **dict.fromkeys(MEASURED, 1.0),
    }
    sizes, measured, steps, checkpoints = scaling_tables(results)
    assert "100.0 MB; 80% of them before the backward pass ends" in sizes
    assert "80.0 (0.50), 20.0 (0.90)" in sizes and "33 MB, to the first" in sizes
    assert all(text in measured for text in MEASURED.values())
    rows = [line.split() for line in steps.splitlines() if line[:1].isdigit()]
    assert [row[:2] for row in rows[:3]] == [["164", "100"], ["164", "200"], ["164", "400"]]
    assert "1 s a checkpoint, 48 s a restart" in checkpoints.replace("1.0 s", "1 s")
    shortest = [line.split()[1::2] for line in checkpoints.splitlines() if line[:1].isdigit()]
    assert shortest[0] == [str(round((2 * 86400 / n) ** 0.5 / 0.164)) for n in (1, 2, 4, 8)]
