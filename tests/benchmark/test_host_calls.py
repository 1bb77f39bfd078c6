import torch

from eakd_det.benchmark.host_calls import NUMBER, dearest_calls, table_of_calls


def _slow():
    return sum(i for i in range(200_000))


def test_the_dearest_operators_and_functions():
    x = torch.randn(400, 400)

    def step():
        _slow()
        return [x + 1, *(x @ x for _ in range(4))]

    calls = dearest_calls(step)
    name, number, ms = calls["operators"][0]
    assert (name, number) == ("aten::mm", 4) and ms > 0
    functions = [name for name, _, _ in calls["functions"]]
    assert any("test_host_calls.py" in name for name in functions[:2])
    assert all(len(rows) <= NUMBER for rows in calls.values())
    out = table_of_calls("a step", calls)
    assert "a step, operators" in out and "aten::mm" in out and "a step, functions" in out
