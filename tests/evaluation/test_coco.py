import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

from eakd_det.config.defaults import stock_config
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.evaluation import coco as evaluation
from eakd_det.evaluation.coco import Evaluator
from eakd_det.evaluation.comparison import compare_results
from eakd_det.evaluation.no_detections import explain_no_detections
from eakd_det.utils.errors import UserError


def _random_detections(scenes):
    """Boxes near the ground truth, half of each as its mask, some with another class."""
    generator = np.random.default_rng(0)
    for scene in scenes:
        boxes, classes = [], []
        for annotation in scene["annotations"]:
            x, y, width, height = annotation["bbox"]
            for _ in range(3):
                noise = generator.normal(0, 3, 4)
                boxes.append(np.array([x, y, x + width, y + height]) + noise)
                is_right = generator.random() < 0.7
                classes.append(annotation["category_id"] if is_right else generator.integers(10))
        found = Instances((96, 96))
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes)))
        found.scores = torch.tensor(generator.random(len(boxes)))
        found.pred_classes = torch.tensor(classes)
        found.pred_masks = BitMasks.from_polygon_masks(
            [[[x1, y1, x2, y1, x2, y2]] for x1, y1, x2, y2 in boxes], 96, 96
        ).tensor
        yield [scene], [{"instances": found}]


def _numbers(evaluator, scenes):
    """The twelve COCO numbers of boxes and of masks, and Detectron2's results with each class."""
    summaries = []
    derive = evaluator._derive_coco_results

    def remember(coco_eval, *args, **kwargs):
        summaries.append(np.array(coco_eval.stats[:12], dtype=np.float64))
        return derive(coco_eval, *args, **kwargs)

    evaluator._derive_coco_results = remember
    evaluator.reset()
    for inputs, outputs in _random_detections(scenes):
        evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    return np.stack(summaries), results


@pytest.fixture
def masks(scenes, tmp_path):
    """The validation scenes, with half of each box, a triangle, as its mask."""
    with open(MetadataCatalog.get(scenes[1]).json_file) as f:
        data = json.load(f)
    for annotation in data["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    (tmp_path / "masks.json").write_text(json.dumps(data))
    name = "tiny_digits_with_masks"
    register_coco_instances(name, {}, str(tmp_path / "masks.json"), str(tmp_path))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.skipif(not evaluation.HAS_FASTER_COCO_EVAL, reason="faster-coco-eval is not installed")
def test_the_faster_engine_gives_the_same_twelve_numbers(masks, tmp_path):
    dicts = DatasetCatalog.get(masks)
    fast = Evaluator(masks, output_dir=str(tmp_path))
    reference = COCOEvaluator(masks, output_dir=str(tmp_path), use_fast_impl=False)
    numbers, results = _numbers(fast, dicts)
    expected, expected_results = _numbers(reference, dicts)
    assert fast._use_fast_impl
    assert expected.shape == (2, 12)
    assert (0.01 < expected[:, 0]).all(), "not empty"
    assert (expected[:, 0] < 0.95).all(), "not perfect"
    np.testing.assert_allclose(numbers, expected, rtol=0, atol=1e-12)
    for task, metrics in expected_results.items():
        assert results[task] == pytest.approx(metrics, nan_ok=True)
        assert "AP-3" in results[task], "one figure a class"


def test_without_the_faster_engine(masks, tmp_path, monkeypatch):
    dicts = DatasetCatalog.get(masks)
    monkeypatch.setattr(evaluation, "HAS_FASTER_COCO_EVAL", False)
    slow = Evaluator(masks, output_dir=str(tmp_path))
    reference = COCOEvaluator(masks, output_dir=str(tmp_path), use_fast_impl=False)
    numbers, _ = _numbers(slow, dicts)
    np.testing.assert_allclose(numbers, _numbers(reference, dicts)[0], rtol=0, atol=1e-12)


IDS = {
    "annotations from 0": {"annotations": lambda i: i},
    "negative annotations": {"annotations": lambda i: i - 7},
    "annotations as text": {"annotations": lambda i: f"a{i}"},
    "images as text": {"images": lambda i: f"image {i}"},
    "images as decimals and truth values": {"images": lambda i: [True, 2.5, 0.0, 4.0][i]},
    "large images": {"images": lambda i: 2**64 + i},
    "categories as text": {"categories": lambda i: "zyx"[i]},
    "categories from 0": {"categories": lambda i: i},
}


def coco_with(ids, number=4):
    """Three classes in each of `number` images, and the same dict without its ids."""
    new = {key: ids.get(key, lambda i: i + 1) for key in ("images", "annotations", "categories")}
    pairs = [(image, category) for image in range(number) for category in range(3)]
    return {
        "images": [
            {"id": new["images"](i), "file_name": f"{i}.png", "width": 60, "height": 40}
            for i in range(number)
        ],
        "categories": [{"id": new["categories"](i), "name": f"class {i}"} for i in range(3)],
        "annotations": [
            {
                "id": new["annotations"](i),
                "image_id": new["images"](image),
                "category_id": new["categories"](category),
                "bbox": [4 + 15 * category, 5 + image, 12, 10],
                "area": 120,
                "iscrowd": 0,
            }
            for i, (image, category) in enumerate(pairs)
        ],
    }


def find_all(evaluator, dicts):
    """The result of a detector that finds each object where it is."""
    evaluator.reset()
    for scene in dicts:
        x, y, width, height = np.array([a["bbox"] for a in scene["annotations"]]).T
        found = Instances((40, 60))
        found.pred_boxes = Boxes(torch.tensor(np.stack([x, y, x + width, y + height], axis=1)))
        found.scores = torch.full((len(x),), 0.9)
        found.pred_classes = torch.tensor([a["category_id"] for a in scene["annotations"]])
        evaluator.process([scene], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


@pytest.fixture(params=["faster-coco-eval", "pycocotools"])
def engine(request, monkeypatch):
    if request.param == "pycocotools":
        monkeypatch.setattr(evaluation, "HAS_FASTER_COCO_EVAL", False)
    elif not evaluation.HAS_FASTER_COCO_EVAL:
        pytest.skip("faster-coco-eval is not installed")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("case", IDS)
def test_perfect_detections_have_100_whatever_the_ids(tmp_path, case):
    data = coco_with(IDS[case])
    (tmp_path / "data.json").write_text(json.dumps(data))
    name = "any_ids"
    register_coco_instances(name, {}, str(tmp_path / "data.json"), str(tmp_path))
    try:
        evaluator = Evaluator(name, output_dir=str(tmp_path))
        for _ in range(2):  # an evaluator may be used again
            result = find_all(evaluator, DatasetCatalog.get(name))
        metadata = MetadataCatalog.get(name)
        classes = [metadata.thing_classes[i] for i in range(3)]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert [result["AP"], *(result[f"AP-{c}"] for c in classes)] == pytest.approx([100] * 4)
    results = json.loads((tmp_path / "coco_instances_results.json").read_text())
    expected = [(a["image_id"], a["category_id"], a["bbox"]) for a in data["annotations"]]
    got = [(x["image_id"], x["category_id"], x["bbox"]) for x in results]
    assert sorted(map(repr, got)) == sorted(
        map(repr, [(i, c, list(map(float, b))) for i, c, b in expected])
    )


def test_annotations_without_ids_are_refused_by_name(tmp_path):
    data = coco_with({})
    del data["annotations"][1]["id"]
    (tmp_path / "data.json").write_text(json.dumps(data))
    MetadataCatalog.get("no_ids").set(json_file=str(tmp_path / "data.json"))
    with pytest.raises(
        UserError, match=r"no_ids cannot be evaluated.*data.json lacks the key 'id'"
    ):
        Evaluator("no_ids", output_dir=str(tmp_path))
    MetadataCatalog.remove("no_ids")


@pytest.fixture
def model(stock_cfg):
    torch.manual_seed(0)
    return build_model(stock_cfg).eval()


@pytest.fixture
def inputs(batch):
    return batch[:1]


def test_broken_weights(model, inputs):
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = float("nan")
    cause = explain_no_detections(model, inputs)
    assert "1 of its weights are not finite, roi_heads.box_predictor.cls_score.bias" in cause


def test_low_scores(model, inputs):
    model.roi_heads.box_predictor.test_score_thresh = 0.9
    cause = explain_no_detections(model, inputs)
    assert "the highest score in the first batch is 0." in cause
    assert "below MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.9" in cause
    assert model.roi_heads.box_predictor.test_score_thresh == 0.9


def test_low_scores_of_a_retinanet(retina_cfg, inputs):
    model = build_model(stock_config(retina_cfg)).eval()
    cause = explain_no_detections(model, inputs)
    assert "below MODEL.RETINANET.SCORE_THRESH_TEST 0.05" in cause


def test_no_proposals(model, inputs):
    model.proposal_generator.post_nms_topk[False] = 0
    assert "its RPN proposes nothing" in explain_no_detections(model, inputs)


def test_the_cause_is_logged(run_cfg, caplog):
    run_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.99
    cfg = stock_config(run_cfg)
    with caplog.at_level(logging.WARNING):
        DistillTrainer.test(cfg, build_model(cfg))
    assert f"Nothing was found in {cfg.DATASETS.TEST[0]}: the highest score" in caplog.text


def test_an_evaluator_of_the_user_s(run_cfg, tmp_path):
    cfg = stock_config(run_cfg)
    own = COCOEvaluator(cfg.DATASETS.TEST[0], output_dir=str(tmp_path), use_fast_impl=False)
    model = build_model(cfg)
    results = DistillTrainer.test(cfg, model, own)
    assert results["bbox"]["AP"] == DistillTrainer.test(cfg, model)["bbox"]["AP"]


def test_comparison():
    student = {"bbox": {"AP": 30.04, "AP50": 50.0, "AP-cat": 1.0}}
    teacher = {"bbox": {"AP": 40.0, "AP50": 60.0, "AP-cat": 2.0}, "segm": {"AP": 35.0}}
    text = compare_results({"teacher": teacher, "student": student})
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["bbox", "AP", "AP50"]
    assert ["teacher", "40.0", "60.0"] in rows
    assert ["student", "30.0", "50.0"] in rows
    assert ["segm", "AP"] in rows
    assert ["teacher", "35.0"] in rows


def test_comparison_on_several_datasets():
    def of(ap):
        return {"val": {"bbox": {"AP": ap}}, "test": {"bbox": {"AP": ap + 1}}}

    text = compare_results({"teacher": of(40.0), "student": of(30.0)})
    rows = [line.split() for line in text.splitlines()]
    assert ["val/bbox", "AP"] in rows
    assert ["test/bbox", "AP"] in rows
    assert ["teacher", "41.0"] in rows
    assert ["student", "30.0"] in rows
