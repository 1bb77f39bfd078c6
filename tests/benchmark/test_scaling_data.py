import os

from eakd_det.benchmark import scaling_data


def test_the_data_are_checked_read_and_evaluated(monkeypatch):
    before = dict(os.environ)
    monkeypatch.setattr(scaling_data, "DIFFERENT", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # `_measure` sets it, in a process of its own
    measured = scaling_data._measure(4, 2)
    names = ("check", "cached_check", "read", "coco_eval")
    assert all(measured[f"{name}_seconds"] > 0 for name in names)
    found = scaling_data.DETECTIONS * scaling_data.VAL
    assert 50 * found < measured["detections_bytes"] < 200 * found
    monkeypatch.undo()
    assert dict(os.environ) == before
