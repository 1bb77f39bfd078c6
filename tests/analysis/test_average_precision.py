"""eakd_det.analysis.average_precision."""

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode

from eakd_det.analysis.average_precision import (
    NEAR,
    NUM_RESAMPLES,
    ap_of_parts,
    interval,
    match_detections,
)
from eakd_det.analysis.objects import find_objects


def _scene(image_id, *annotations):
    """A scene of (class, box XYWH) or (class, box, "crowd")."""
    return {
        "image_id": image_id,
        "annotations": [
            {
                "category_id": label,
                "bbox": box,
                "bbox_mode": BoxMode.XYWH_ABS,
                "iscrowd": int(bool(crowd)),
            }
            for label, box, *crowd in annotations
        ],
    }


def _found(image_id, label, box, score):
    return {"image_id": image_id, "category_id": label, "bbox": box, "score": score}


A, B, C, FAR = [0, 0, 20, 20], [40, 0, 20, 20], [0, 40, 20, 20], [70, 70, 20, 20]


def _parts(*parts):
    return [torch.tensor(part) for part in parts]


def test_each_part_has_its_own_hits_and_misses():
    objects = find_objects([_scene(7, (0, A), (0, B)), _scene(3, (0, C))])
    detections = [_found(7, 0, A, 0.9), _found(3, 0, C, 0.8)]
    results = ap_of_parts(objects, detections, _parts([0], [1], [2], [0, 1]))
    assert [r.values["AP"] for r in results[:3]] == pytest.approx([100, 0, 100])
    assert results[3].values["AP"] == pytest.approx(100 * 51 / 101)  # recall 0 to 0.5 of 101 points


@pytest.mark.parametrize(
    ("other", "ap_there"),
    [
        (B, 100),
        ([40, 0, 20, 10], 10),  # IoU 0.5: right at one of ten thresholds
        ([46, 0, 20, 20], 10),
        ([52, 0, 20, 20], 0),  # IoU 0.25
    ],
)
def test_a_detection_of_another_part_s_object_does_not_count(other, ap_there):
    objects = find_objects([_scene(1, (0, A), (0, B))])
    detections = [_found(1, 0, other, 0.9), _found(1, 0, A, 0.5)]
    results = ap_of_parts(objects, detections, _parts([0], [1]))
    assert [r.values["AP"] for r in results] == pytest.approx([100, ap_there])


def test_a_confused_detection_counts_as_wrong_in_the_part_of_its_object():
    """An object of class 1 at B is taken for class 0."""
    objects = find_objects([_scene(1, (0, A), (1, B)), _scene(2, (0, C))])
    detections = [_found(1, 0, B, 0.9), _found(1, 0, A, 0.5), _found(2, 0, C, 0.4)]
    hit, confused, both = ap_of_parts(objects, detections, _parts([0], [1, 2], [0, 1, 2]))
    assert hit.values["AP"] == pytest.approx(100)
    # Class 0: wrong, right: precision 1/2 at every recall; class 1 is not found.
    assert confused.values["AP"] == pytest.approx((50 + 0) / 2)
    assert both.values["AP"] == pytest.approx((100 * 2 / 3 + 0) / 2)


def test_a_detection_of_nothing_counts_as_wrong_in_every_part():
    objects = find_objects([_scene(1, (0, A), (0, B))])
    detections = [_found(1, 0, FAR, 0.9), _found(1, 0, A, 0.5), _found(1, 0, B, 0.5)]
    results = ap_of_parts(objects, detections, _parts([0], [1]))
    assert [r.values["AP"] for r in results] == pytest.approx([50, 50])


def test_crowds_are_no_objects_and_hide_what_lies_in_them():
    objects = find_objects([_scene(1, (0, A), (0, FAR, "crowd"))])
    assert len(objects) == 1
    detections = [_found(1, 0, [72, 72, 8, 8], 0.9), _found(1, 0, A, 0.5)]
    assert ap_of_parts(objects, detections, _parts([0]))[0].values["AP"] == pytest.approx(100)


def test_nothing_found():
    objects = find_objects([_scene(1, (0, A))])
    (result,) = ap_of_parts(objects, [], _parts([0]))
    assert result.values == {"AP": 0, "AP50": 0, "AP75": 0}
    assert result.resampled.tolist() == [0] * NUM_RESAMPLES


def test_detections_are_matched_at_half_an_iou():
    scenes = [_scene(1, (0, A), (1, B), (0, FAR, "crowd")), _scene(2, (0, C))]
    detections = [
        _found(1, 0, A, 0.9),
        _found(1, 0, A, 0.8),  # a second time
        _found(1, 0, B, 0.7),  # of another class
        _found(1, 1, [40, 0, 20, 10], 0.6),  # IoU 0.5
        _found(1, 1, [52, 0, 20, 20], 0.5),  # IoU 0.25
        _found(1, 0, [72, 72, 8, 8], 0.4),  # on a crowd
        _found(1, 2, A, 0.3),  # of a class without objects
    ]
    scores, hits = match_detections(find_objects(scenes), detections)
    outcomes = dict(zip(scores.tolist(), hits.tolist(), strict=True))
    assert outcomes == {0.9: True, 0.8: False, 0.7: False, 0.6: True, 0.5: False}
    assert [len(x) for x in match_detections(find_objects(scenes), [])] == [0, 0]


def _iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _slow_ap(objects, detections, part, threshold):
    """AP of a part by its definition, class by class, box by box; percent."""
    ids = [scene["image_id"] for scene in objects.scenes]
    truth = [
        (ids[place], label, [x0, y0, x1 - x0, y1 - y0], i in part)
        for i, (place, label, (x0, y0, x1, y1)) in enumerate(
            zip(
                objects.places.tolist(),
                objects.labels.tolist(),
                objects.boxes.tolist(),
                strict=True,
            )
        )
    ]
    aps = []
    for label in sorted({t[1] for t in truth if t[3]}):
        taken, outcomes = set(), []
        for d in sorted(detections, key=lambda d: -d["score"]):
            if d["category_id"] != label:
                continue
            overlaps = [
                (is_inside, _iou(d["bbox"], box), i)
                for i, (image, its_label, box, is_inside) in enumerate(truth)
                if (image, its_label) == (d["image_id"], label) and i not in taken
            ]
            fitting = [x for x in overlaps if x[1] >= threshold]
            if fitting:  # its own part's objects first, then the nearest
                is_inside, _, i = max(fitting)
                taken.add(i)
                if is_inside:
                    outcomes.append(1)
                continue
            of_image = [x for x in truth if x[0] == d["image_id"]]
            near = max(((_iou(d["bbox"], x[2]), x[3]) for x in of_image), default=(0, True))
            if near[0] < NEAR or near[1]:
                outcomes.append(0)
        hits = np.cumsum(outcomes)
        number = sum(1 for t in truth if t[1] == label and t[3])
        recall, precision = hits / number, hits / np.arange(1, len(hits) + 1)
        reached = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
        aps.append(np.mean(reached))
    return 100 * np.mean(aps)


def _random_case(seed):
    rng = np.random.default_rng(seed)
    scenes, detections = [], []
    for image_id in range(1, 9):
        boxes = [
            [*rng.uniform(0, 60, 2).tolist(), *rng.uniform(15, 30, 2).tolist()]
            for _ in range(rng.integers(0, 6))
        ]
        labels = rng.integers(0, 3, len(boxes)).tolist()
        scenes.append(_scene(image_id, *zip(labels, boxes, strict=True)))
        for label, box in zip(labels, boxes, strict=True):
            for _ in range(rng.integers(0, 3)):
                moved = (np.array(box) + rng.normal(0, 1.5, 4)).tolist()
                guess = label if rng.random() < 0.7 else int(rng.integers(0, 3))
                detections.append(_found(image_id, guess, moved, float(rng.random())))
        far = [*rng.uniform(100, 160, 2).tolist(), 20.0, 20.0]
        detections.append(_found(image_id, int(rng.integers(0, 3)), far, float(rng.random())))
    return find_objects(scenes), detections


@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_reference(seed):
    objects, detections = _random_case(seed)
    order = torch.randperm(len(objects), generator=torch.Generator().manual_seed(seed))
    parts = [*order.tensor_split(3), order]
    for part, result in zip(parts, ap_of_parts(objects, detections, parts), strict=True):
        for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
            expected = _slow_ap(objects, detections, part.tolist(), threshold)
            assert result.values[name] == pytest.approx(expected, abs=1e-9)


def test_a_draw_is_the_ap_of_the_images_that_it_draws():
    """Images that are drawn twice get another id the second time."""
    objects, detections = _random_case(0)
    scenes = sorted(objects.scenes, key=lambda scene: scene["image_id"])
    order = torch.arange(len(objects))
    (whole,) = ap_of_parts(objects, detections, [order])
    draws = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), NUM_RESAMPLES)
    for draw in (0, 1, 2):
        again, found = [], []
        for scene, times in zip(scenes, draws[draw], strict=True):
            for copy in range(times):
                new = 100 * scene["image_id"] + copy
                again.append({**scene, "image_id": new})
                mine = [d for d in detections if d["image_id"] == scene["image_id"]]
                found += [{**d, "image_id": new} for d in mine]
        drawn = find_objects(again)
        (expected,) = ap_of_parts(drawn, found, [torch.arange(len(drawn))])
        assert whole.resampled[draw] == pytest.approx(expected.values["AP"])


def test_an_interval_narrows_with_the_number_of_images():
    widths = []
    for copies in (1, 9):
        scenes, detections = [], []
        for seed in range(copies):
            objects, found = _random_case(seed)
            scenes += [{**s, "image_id": s["image_id"] + 10 * seed} for s in objects.scenes]
            detections += [{**d, "image_id": d["image_id"] + 10 * seed} for d in found]
        objects = find_objects(scenes)
        (result,) = ap_of_parts(objects, detections, [torch.arange(len(objects))])
        low, high = interval(result.values["AP"], result.resampled)
        assert low < result.values["AP"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_the_detections_stay_as_they_are():
    objects, detections = _random_case(0)
    before = [dict(x) for x in detections]
    ap_of_parts(objects, detections, _parts([0], [1]))
    assert detections == before
