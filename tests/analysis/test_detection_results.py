"""eakd_det.analysis.detection_results."""

import json
from dataclasses import replace

import pytest
import torch
from detectron2.data import DatasetCatalog
from torchvision.ops import box_convert

from eakd_det.analysis import results
from eakd_det.analysis.detection_results import NUM_PICTURES, ap_result, detector_results
from eakd_det.analysis.objects import DetectorOutputs, find_objects
from eakd_det.analysis.samples import Samples
from eakd_det.data.datasets.digits import NAMES
from eakd_det.utils.errors import UserError


@pytest.fixture
def objects(scenes):
    return find_objects([x for name in scenes for x in DatasetCatalog.get(name)])


def _outputs(objects, is_right, sharpness):
    """Outputs of a detector that predicts the right or the next class for each object's box.

    Args:
        sharpness: (N,) logit of the predicted class.
    """
    predicted = torch.where(is_right, objects.labels, (objects.labels + 1) % len(NAMES))
    logits = torch.zeros(len(objects), len(NAMES) + 1)
    logits[torch.arange(len(objects)), predicted] = sharpness
    generator = torch.Generator().manual_seed(0)
    features = logits + torch.rand(logits.shape, generator=generator)
    boxes = box_convert(objects.boxes, "xyxy", "xywh").tolist()
    detections = [
        {"image_id": objects.scenes[place]["image_id"], "category_id": label, "bbox": b, "score": s}
        for place, label, b, s in zip(
            objects.places.tolist(), predicted.tolist(), boxes, sharpness.tolist(), strict=True
        )
    ]
    return DetectorOutputs(Samples(objects.labels, logits, features), detections)


@pytest.fixture
def pair(objects):
    """A teacher that is always right, and a student that errs where the teacher is least sure."""
    sharpness = torch.linspace(9, 1, len(objects))
    is_sure = torch.arange(len(objects)) < len(objects) // 2
    student = _outputs(objects, is_sure, sharpness)
    return _outputs(objects, torch.ones_like(is_sure), sharpness), student


def test_the_least_sure_part_is_where_the_student_errs(objects, pair):
    teacher, student = pair
    report = ap_result(objects, teacher, {"KD": student}, temperature=2.0)
    _, numbers = report.figures["ap_segments"]
    assert sum(part["number"] for part in numbers["parts"]) == len(objects)
    entropies = [part["entropy"] for part in numbers["parts"]]
    assert entropies == sorted(entropies)
    assert [x["AP"] for x in numbers["by_teacher_entropy"]["teacher"]] == pytest.approx([100] * 5)
    student_aps = [x["AP"] for x in numbers["by_teacher_entropy"]["KD"]]
    assert student_aps[:2] == pytest.approx([100, 100]) and student_aps[3:] == [0, 0]
    assert student_aps[1] > numbers["all"]["KD"]["AP"] > 0
    sure, all_of_kd = "100.0 [100.0, 100.0]", numbers["all"]["KD"]
    overall = "{:.1f} [{:.1f}, {:.1f}]".format(all_of_kd["AP"], *all_of_kd["interval"])
    assert report.rows == [["teacher", *[sure] * 3], ["KD", overall, sure, "0.0 [0.0, 0.0]"]]


def test_gaps_are_of_the_same_images(objects, pair):
    """A teacher's lead over itself is nothing, whatever images are drawn."""
    teacher, student = pair
    report = ap_result(objects, student, {"same": student, "KD": teacher}, temperature=2.0)
    _, numbers = report.figures["ap_segments"]
    gaps = numbers["teacher_minus_student"]
    assert [gap["interval"] for gap in gaps["same"]] == [(0, 0)] * 5
    low, high = gaps["KD"][2]["interval"]
    assert low < gaps["KD"][2]["AP"] < high
    own = numbers["by_teacher_entropy"]["teacher"][2]
    assert own["interval"][0] < own["AP"] < own["interval"][1]


def test_all_figures_and_one_table(objects, pair, tmp_path):
    teacher, student = pair
    first, report = detector_results(
        objects,
        teacher,
        {"KD": student, "EA": teacher},
        NAMES,
        [["KD", "EA", "teacher"]],
        temperature=4.0,
        num_points=20,
        seed=0,
    )
    assert first.rows == [row[: len(first.headers)] for row in report.rows]
    for part in (first, report):
        part.write(str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    figures = ("ap_segments", "entropy_segments", "weights", "detection_calibration")
    figures += ("tsne", "gallery_1", "gallery_2")
    assert names == {f"{name}.{ending}" for name in figures for ending in ("png", "svg", "json")}
    assert [row[0] for row in report.rows] == ["teacher", "KD", "EA"]
    assert {len(row) for row in report.rows} == {len(report.headers)}
    numbers = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in figures}
    assert numbers["tsne"]["samples"] == 20
    assert numbers["entropy_segments"]["samples"] == len(objects)
    shown = numbers["gallery_1"]["objects"]
    weights = [x["w_ea"] for x in shown]
    assert weights == sorted(weights, reverse=True) and len(shown) == NUM_PICTURES
    every = student.samples.weight(teacher.samples, 4.0)
    assert weights == pytest.approx(every.sort(descending=True).values[:NUM_PICTURES].tolist())
    last = objects.labels[-1]  # of the least sure
    assert shown[0]["class"] == NAMES[last]
    assert shown[0]["teacher"].startswith(f"{NAMES[last]}: ")
    assert shown[0]["student"].startswith(f"{NAMES[(last + 1) % 10]}: ")


def test_one_class(objects, pair, tmp_path):
    """Its Calinski-Harabasz index is left out, and nothing else is."""
    objects = replace(objects, labels=torch.zeros_like(objects.labels))
    teacher, student = (
        DetectorOutputs(
            Samples(objects.labels, of.samples.logits[:, -2:], of.samples.features),
            [{**detection, "category_id": 0} for detection in of.detections],
        )
        for of in pair
    )
    names, rows = ["part"], [["KD", "teacher"]]
    settings = {"temperature": 4.0, "num_points": 20, "seed": 0}
    reports = detector_results(objects, teacher, {"KD": student}, names, rows, **settings)
    paths = [path for report in reports for path in report.write(str(tmp_path))]
    assert len(paths) == 6 * 3
    networks = json.loads((tmp_path / "tsne.json").read_text())["networks"]
    assert networks["KD"]["calinski_harabasz"] is None
    assert networks["KD"]["top1"] is not None


def test_results_before_an_error_stay(objects, pair, monkeypatch):
    monkeypatch.setattr(results, "separate", lambda *_, **__: 1 / 0)
    teacher, student = pair
    settings = {"temperature": 4.0, "num_points": 20, "seed": 0}
    reports = detector_results(
        objects, teacher, {"KD": student}, NAMES, [["KD", "teacher"]], **settings
    )
    assert {"ap_segments", "gallery"} <= next(reports).figures.keys()
    with pytest.raises(ZeroDivisionError):
        next(reports)


def test_too_few_objects(scenes):
    scene = dict(DatasetCatalog.get(scenes[0])[0])
    scene["annotations"] = scene["annotations"][:3]
    objects = find_objects([scene])
    answers = _outputs(objects, torch.ones(3, dtype=torch.bool), torch.ones(3))
    with pytest.raises(UserError, match="3 objects are too few for 5 parts"):
        ap_result(objects, answers, {"KD": answers}, temperature=4.0)
