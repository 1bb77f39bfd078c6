import torch

from eakd_det.analysis.confusions import confusions_result, count_confusions
from eakd_det.analysis.samples import Samples

NAMES = ("disc", "frame", "star")


def samples(labels, predicted):
    logits = torch.eye(3)[torch.tensor(predicted)]
    return Samples(torch.tensor(labels), logits, torch.zeros(len(labels), 1))


def test_confusions_are_counted_and_named():
    student = samples([0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 2])
    teacher = samples([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1])
    assert count_confusions(student).tolist() == [[1, 2, 0], [0, 2, 1], [0, 0, 0]]
    found = {"KD": student, "teacher": teacher}
    result = confusions_result(found, [["KD", "teacher"]], names=NAMES)
    assert [row[:2] for row in result.rows] == [["disc", 3], ["frame", 3]]  # the worst first
    assert [row[3] for row in result.rows] == ["frame 2", "star 1"]
    assert [row[5] for row in result.rows] == ["-", "-"]
    figure, numbers = result.figures["confusions"]
    assert numbers["classes"] == list(NAMES) and numbers["samples"] == [3, 3, 0]
    assert numbers["networks"]["teacher"]["top1"] == {"disc": 100.0, "frame": 100.0}
    ticks = {text.get_text() for text in figure.axes[0].get_yticklabels()}
    assert ticks == set(NAMES)
    assert "frame" in result.table()


def test_many_classes_are_drawn_without_names():
    labels = torch.arange(60)
    many = Samples(labels, torch.eye(60), torch.zeros(60, 1))
    names = [f"class {i}" for i in range(60)]
    result = confusions_result({"KD": many}, [["KD"]], names=names)
    assert len(result.rows) == 30
    assert not result.figures["confusions"][0].axes[0].texts
