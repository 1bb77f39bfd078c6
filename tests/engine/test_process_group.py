from datetime import timedelta

import pytest
from torch import distributed

from eakd_det.engine import launch
from eakd_det.engine.process_group import LONGEST, limit_exchanges, time_limit
from eakd_det.utils.errors import UserError


@pytest.mark.parametrize("seconds", [0, -5, LONGEST + 1, "1800", None, True, float("nan")])
def test_a_time_limit_is_a_number_of_seconds(seconds):
    with pytest.raises(UserError, match=r"DDP_TIMEOUT .* must be a number of seconds from 1 to"):
        time_limit(seconds)
    assert time_limit(1.5) == timedelta(seconds=1.5)


def test_exchanges_on_the_cpu_have_the_limit_of_the_gpus(monkeypatch):
    made = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(distributed, "new_group", lambda **options: made.append(options) or "group")
    monkeypatch.setattr(launch.comm, "_get_global_gloo_group", None)  # restored at the end
    limit_exchanges(timedelta(seconds=7))
    assert made == [{"backend": "gloo", "timeout": timedelta(seconds=7)}]
    assert launch.comm._get_global_gloo_group() == "group"
