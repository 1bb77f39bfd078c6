import torch
from torch import nn

from eakd_det.modeling.compared_maps import LevelMaps, compare_levels
from eakd_det.modeling.recorder import Call


class _Spec:
    def __init__(self, stride, channels):
        self.stride, self.channels = stride, channels


class _Detector(nn.Module):
    def __init__(self, **channels):
        super().__init__()
        self.backbone = self
        self.specs = {n: _Spec(2 ** int(n[-1]), width) for n, width in channels.items()}

    def output_shape(self):
        return self.specs


def test_levels_are_those_of_equal_stride_finest_first():
    maps = compare_levels(_Detector(p3=8, p2=16), _Detector(res2=24, res3=32))
    assert maps.levels == [("p2", "res2"), ("p3", "res3")]
    assert maps.channels == [[16, 8], [24, 32]]
    features = {name: torch.full((1, 1, 1, 1), i) for i, name in enumerate(["p2", "p3", "other"])}
    calls = {"backbone": [Call((), features)]}
    assert [x.item() for x in maps.student_maps(calls)] == [0, 1]
    theirs = {"res3": torch.ones(1), "res2": torch.zeros(1), "p2": None}
    assert [x.item() for x in maps.teacher_maps(theirs)] == [0, 1]
    assert maps.of_teacher == ["res2", "res3"]


def test_no_maps():
    maps = LevelMaps()
    assert maps.student_maps({"backbone": [Call((), {"p2": None})]}) == []
    assert maps.teacher_maps({}) == maps.of_teacher == []
    assert not maps.channels
