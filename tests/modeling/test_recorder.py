import pytest
import torch
from torch import nn

from eakd_det.modeling.recorder import record


def test_records_arguments_and_outputs_in_the_graph():
    first, second = nn.Linear(3, 4), nn.Linear(4, 2)
    x = torch.randn(5, 3)
    with record(first=first, second=second) as calls:
        y = second(first(x))
        second(first(x))
    assert [len(calls[name]) for name in ("first", "second")] == [2, 2]
    assert calls["first"][0].args[0] is x
    assert calls["second"][0].output is y
    calls["first"][0].output.sum().backward()
    assert first.weight.grad is not None


def test_output_is_not_changed():
    module, x = nn.Linear(3, 4), torch.randn(2, 3)
    expected = module(x)
    with record(module=module):
        assert torch.equal(module(x), expected)


def test_no_hook_outlives_the_block():
    module = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="stop"), record(module=module) as calls:
        raise RuntimeError("stop")
    module(torch.zeros(1, 1))
    assert not module._forward_hooks
    assert calls == {"module": []}


class _Model:
    def half(self, x, *, rest=0):
        return x / 2 + rest

    def both(self, x):
        return self.half(x, rest=1) + self.half(x)


def test_records_methods():
    model = _Model()
    with record(half=model.half) as calls:
        assert model.both(4) == 5
    assert [(call.args, call.output) for call in calls["half"]] == [((4,), 3), ((4,), 2)]
    assert vars(model) == {}
    with pytest.raises(ZeroDivisionError), record(half=model.half):
        raise ZeroDivisionError
    assert vars(model) == {}
    assert model.both(4) == 5
    assert len(calls["half"]) == 2


def test_recordings_nest():
    model = _Model()
    with record(half=model.half) as outer:
        with record(half=model.half) as inner:
            model.half(4)
        model.half(2)
    assert [call.output for call in outer["half"]] == [2, 1]
    assert [call.output for call in inner["half"]] == [2]
    assert vars(model) == {}
