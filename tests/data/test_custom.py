import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.evaluation import COCOEvaluator

from eakd_det.data.coco_check import check_coco, summarize
from eakd_det.data.custom import prepare_custom_data, register_checked_copy, use_custom_data
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.evaluation.coco import Evaluator
from eakd_det.evaluation.detections import read_detections
from eakd_det.utils.errors import UserError
from tests.conftest import save_teacher
from tests.evaluation.test_coco import IDS, coco_with, find_all

from .test_coco_check import HEIGHT, WIDTH, save_image

BOX = [5, 6, 20, 20]
RLE = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 10, HEIGHT * 5, HEIGHT * (WIDTH - 15)]}


def make(folder, *, images=None, annotations=None, categories=None, encoding="utf-8"):
    """Write a COCO file and its images; the path of the file and the folder of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = images or [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    for image in images:
        options = image.pop("saved", {})
        path = folder / image["file_name"].replace("\\", "/")
        path.parent.mkdir(exist_ok=True)
        save_image(path, **options)
    if annotations is None:
        annotations = [{"image_id": image["id"], "category_id": 1} for image in images]
    for i, annotation in enumerate(annotations):
        annotation.setdefault("id", i + 1)
        annotation.setdefault("bbox", BOX)
    data = {
        "images": [{"width": WIDTH, "height": HEIGHT, **image} for image in images],
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
    }
    path = folder / "data.json"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    return str(path), str(folder)


HANDLED = {
    "sound": {},
    "ids with gaps": {
        "annotations": [{"image_id": 1, "category_id": 90}, {"image_id": 2, "category_id": 13}],
        "categories": [{"id": 90, "name": "nut"}, {"id": 13, "name": "bolt"}],
    },
    "crowds": {
        "annotations": [
            {"image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 60, 40]},
            {"image_id": 1, "category_id": 2},
            {"image_id": 2, "category_id": 2, "iscrowd": 0, "area": 400},
        ]
    },
    "an image without annotations": {"annotations": [{"image_id": 1, "category_id": 2}]},
    "no annotations at all": {"annotations": []},
    "names": {
        "images": [{"id": 1, "file_name": "Größe 螺.png"}, {"id": 2, "file_name": "b c.png"}],
        "categories": [{"id": 1, "name": "Schlüssel"}, {"id": 2, "name": "螺丝"}],
    },
    "grayscale": {
        "images": [
            {"id": 1, "file_name": "a.png", "saved": {"mode": "L"}},
            {"id": 2, "file_name": "b.png", "saved": {"mode": "1"}},
        ]
    },
    "sideways": {
        "images": [
            {"id": 1, "file_name": "a.jpg", "saved": {"orientation": 6}},
            {"id": 2, "file_name": "b.jpg", "saved": {"orientation": 8}, "width": 40, "height": 60},
        ]
    },
    "annotation ids from 0": {
        "annotations": [
            {"id": 0, "image_id": 1, "category_id": 1},
            {"id": 1, "image_id": 2, "category_id": 2},
        ]
    },
    "ids as text": {
        "images": [{"id": "a", "file_name": "a.png"}, {"id": "b", "file_name": "b.png"}],
        "annotations": [{"id": "x", "image_id": "b", "category_id": "1"}],
        "categories": [{"id": "1", "name": "bolt"}, {"id": "2", "name": "nut"}],
    },
    "nulls": {
        "images": [{"id": 1, "file_name": "a.png", "width": None, "height": None}],
        "annotations": [
            {"image_id": 1, "category_id": 2, **dict.fromkeys(("iscrowd", "area", "segmentation"))}
        ],
    },
    "a byte order mark": {"encoding": "utf-8-sig"},
    "back-slashes": {"images": [{"id": 1, "file_name": "train\\a.png"}]},
    "Roboflow's root": {
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
        "categories": [
            {"id": 0, "name": "parts", "supercategory": "none"},
            {"id": 1, "name": "bolt", "supercategory": "parts"},
            {"id": 2, "name": "nut", "supercategory": "parts"},
        ],
    },
    "CVAT's brush": {
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[5, 6, 25, 6, 5, 26]]},
            {"image_id": 1, "category_id": 2, "iscrowd": 1, "segmentation": RLE},
            {"image_id": 2, "category_id": 2, "iscrowd": 1, "segmentation": RLE},
        ]
    },
    "segmentations that are no masks": {
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[]]}]
    },
    "names that are numbers": {"categories": [{"id": 1, "name": 5}, {"id": 2, "name": 10}]},
}
NOTES = {
    "crowds": ["1 of 3 objects have iscrowd 1"],
    "Roboflow's root": ["category 'parts' has no boxes and is the parent of all others"],
    "CVAT's brush": ["2 of 3 objects have iscrowd 1 (CVAT writes"],
    "segmentations that are no masks": ["1 of 1 objects have an invalid segmentation"],
}


@pytest.fixture(scope="module")
def teacher_of_two(teacher_cfg, tmp_path_factory):
    teacher_cfg = teacher_cfg.clone()
    teacher_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return save_teacher(teacher_cfg, tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def cfg(distill_cfg, teacher_of_two, tmp_path):
    cfg = distill_cfg
    cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS = teacher_of_two
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, 3, ()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64,), 64
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    os.makedirs(cfg.OUTPUT_DIR)
    return cfg


@pytest.mark.parametrize("case", HANDLED)
def test_handled(cfg, tmp_path, case):
    """Three steps with finite losses, and an evaluation."""
    source = make(tmp_path / "data", **json.loads(json.dumps(HANDLED[case])))
    found = prepare_custom_data(str(tmp_path / "checked"), train=source, val=source)
    (tmp_path / "checked").joinpath(found["val"].json_file).read_bytes().decode("ascii")
    use_custom_data(cfg, found)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 2
    if case == "no annotations at all":
        cfg.DATASETS.TEST = ()  # there is nothing to be evaluated
    trainer = DistillTrainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    losses = trainer.storage.history("total_loss").values()
    assert len(losses) == 3
    assert all(torch.isfinite(torch.tensor(loss)) for loss, _ in losses)
    if cfg.DATASETS.TEST:
        assert -1 <= results["bbox"]["AP"] <= 100
    for note, start in zip(found["train"].notes, NOTES.get(case, ()), strict=True):
        assert note.startswith(f"custom_train: {start}")
    names = MetadataCatalog.get("custom_train").thing_classes
    by_id = sorted(found["train"].data["categories"], key=lambda c: c["id"])
    assert names == [c["name"] for c in by_id]


def test_mixed_masks(cfg, tmp_path):
    """Polygons and RLE train together, as bit masks."""
    masks = [[[5, 6, 25, 6, 5, 26]], RLE, {**RLE, "counts": "`<X6Xh1"}]
    source = make(
        tmp_path / "data",
        annotations=[
            {"image_id": 1 + i % 2, "category_id": 1, "segmentation": mask}
            for i, mask in enumerate(masks)
        ],
    )
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 1, 8
    found = prepare_custom_data(str(tmp_path / "checked"), train=source, val=source, masks=True)
    assert found["train"].notes == [
        "custom_train: some masks are in RLE: INPUT.MASK_FORMAT is set to bitmask."
    ]
    use_custom_data(cfg, found)
    results = DistillTrainer(cfg).train()
    assert results.keys() == {"bbox", "segm"}


def test_images_without_annotations_are_trained_on(cfg, tmp_path):
    source = make(tmp_path / "data", annotations=[{"image_id": 1, "category_id": 2}])
    use_custom_data(cfg, prepare_custom_data(str(tmp_path / "checked"), train=source))
    assert cfg.DATASETS.TEST == ()

    def images():
        loader = DistillTrainer.build_train_loader(cfg)
        batches = iter(loader)
        return {x["image_id"] for _ in range(4) for x in next(batches)}

    assert images() == {1, 2}
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    assert images() == {1}


def test_checked_once_as_long_as_nothing_changes(tmp_path, monkeypatch):
    source = make(tmp_path / "data")
    first = prepare_custom_data(str(tmp_path / "checked"), val=source)
    calls = []
    monkeypatch.setattr("eakd_det.data.custom.check_coco", lambda *args, **_: calls.append(args))
    again = prepare_custom_data(str(tmp_path / "checked"), val=source)
    assert (again, calls) == (first, [])
    monkeypatch.undo()
    changed = json.loads((tmp_path / "data" / "data.json").read_text())
    changed["annotations"][0]["bbox"] = [1, 1, 0, 0]
    (tmp_path / "data" / "data.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="has no size"):
        prepare_custom_data(str(tmp_path / "checked"), val=source)


def test_one_process_checks_and_others_wait(tmp_path, monkeypatch):
    source = make(tmp_path / "data")
    calls = []

    def check(*args, **options):
        calls.append(args)
        time.sleep(0.2)
        return check_coco(*args, **options)

    monkeypatch.setattr("eakd_det.data.custom.check_coco", check)
    with ThreadPoolExecutor(3) as pool:  # locks hold between threads as between processes
        folder = str(tmp_path / "checked")
        found = list(pool.map(lambda _: prepare_custom_data(folder, val=source), range(3)))
    assert len(calls) == 1
    assert found[0] == found[1] == found[2]


def test_images_are_not_opened_again_for_another_output_dir(tmp_path, monkeypatch):
    source = make(tmp_path / "data")
    first = prepare_custom_data(str(tmp_path / "one"), val=source)
    monkeypatch.setattr("eakd_det.data.image_files.check_image_file", None)
    second = prepare_custom_data(str(tmp_path / "two"), val=source)
    assert second["val"].data == first["val"].data
    assert second["val"].json_file != first["val"].json_file


def test_checked_again_on_request(tmp_path):
    source = make(tmp_path / "data")
    prepare_custom_data(str(tmp_path / "checked"), val=source)
    (tmp_path / "data" / "a.png").write_bytes(b"")
    prepare_custom_data(str(tmp_path / "checked"), val=source)
    with pytest.raises(UserError, match=r"image 1: .*a.png cannot be read"):
        prepare_custom_data(str(tmp_path / "checked"), val=source, again=True)


@pytest.mark.parametrize("case", ["annotations from 0", "images as text", "categories as text"])
def test_results_have_the_ids_of_the_user_s_file(tmp_path, case):
    """A stock evaluation of the checked copy is right, ours gives back the ids, and both agree."""
    data = coco_with(IDS[case])
    for image in data["images"]:
        save_image(tmp_path / image["file_name"])
    (tmp_path / "data.json").write_text(json.dumps(data))
    source = str(tmp_path / "data.json"), str(tmp_path)
    found = prepare_custom_data(str(tmp_path / "checked"), val=source)
    use_custom_data(get_cfg(), found)
    assert MetadataCatalog.get("custom_val").thing_classes == [
        c["name"] for c in sorted(data["categories"], key=lambda c: c["id"])
    ]
    dicts = DatasetCatalog.get("custom_val")
    stock = COCOEvaluator("custom_val", output_dir=str(tmp_path), use_fast_impl=False)
    assert find_all(stock, dicts)["AP"] == pytest.approx(100)
    assert find_all(Evaluator("custom_val", output_dir=str(tmp_path)), dicts)["AP"] == (
        pytest.approx(100)
    )
    path = tmp_path / "coco_instances_results.json"
    ids = {(x["image_id"], x["category_id"]) for x in json.loads(path.read_text())}
    assert ids == {(a["image_id"], a["category_id"]) for a in data["annotations"]}
    detections = read_detections(str(path), MetadataCatalog.get("custom_val"))
    for scene in dicts:
        classes = detections[scene["image_id"]].pred_classes.tolist()
        assert sorted(classes) == sorted(a["category_id"] for a in scene["annotations"])


def test_what_is_checked_is_what_is_trained(tmp_path):
    """Objects whose segmentation is none count for boxes, and are refused for masks."""
    path, folder = make(
        tmp_path / "data",
        annotations=[
            {"image_id": 1, "category_id": 1, "segmentation": [[]]},
            {"image_id": 2, "category_id": 2, "segmentation": [[5, 6, 25, 26]]},
        ],
    )
    cfg = get_cfg()
    found = prepare_custom_data(str(tmp_path / "checked"), train=(path, folder))
    use_custom_data(cfg, found)
    assert "2 boxes" in summarize(found["train"].data)
    assert found["train"].notes == [
        "custom_train: 2 of 2 objects have an invalid segmentation; it is removed, and "
        "their boxes stay."
    ]
    scenes = get_detection_dataset_dicts("custom_train", filter_empty=True)
    assert [len(scene["annotations"]) for scene in scenes] == [1, 1]
    again = prepare_custom_data(str(tmp_path / "checked"), train=(path, folder))
    assert again["train"].notes == found["train"].notes
    with pytest.raises(UserError, match=r"annotation 1 of image 1: segmentation \[\[\]\] has no"):
        prepare_custom_data(str(tmp_path / "checked"), train=(path, folder), masks=True)


def test_a_run_s_checked_copy_is_registered(cfg, tmp_path):
    """The newest of its validation data count; images and classes are those of the run."""
    folder = str(tmp_path / "checked")
    for name in ("old", "new"):
        annotations = [{"image_id": 1, "category_id": 1}] * (1 + (name == "new"))
        source = make(tmp_path / name, annotations=[dict(a) for a in annotations])
        use_custom_data(cfg, prepare_custom_data(folder, val=source))
    os.utime(next(Path(folder).glob("val-*.json")))
    expected = sorted(Path(folder).glob("val-*.json"), key=lambda p: p.stat().st_mtime)[-1]
    classes = MetadataCatalog.get("custom_val").thing_classes
    DatasetCatalog.remove("custom_val")  # as in another process
    MetadataCatalog.remove("custom_val")
    register_checked_copy(cfg, folder)
    assert MetadataCatalog.get("custom_val").json_file == str(expected)
    assert MetadataCatalog.get("custom_val").thing_classes == classes
    scenes = DatasetCatalog.get("custom_val")
    assert all(os.path.isfile(scene["file_name"]) for scene in scenes)
    DatasetCatalog.remove("custom_val")
    MetadataCatalog.remove("custom_val")
    for source in ("old", "new"):
        (tmp_path / source).rename(tmp_path / f"moved {source}")
    register_checked_copy(cfg, folder)
    assert "custom_val" not in DatasetCatalog


def test_other_categories_in_val(tmp_path):
    train = make(tmp_path / "train")
    val = make(tmp_path / "val", categories=[{"id": 1, "name": "nut"}, {"id": 2, "name": "bolt"}])
    with pytest.raises(UserError) as error:
        prepare_custom_data(str(tmp_path / "checked"), train=train, val=val)
    assert "train: 1 bolt, 2 nut" in str(error.value)
    assert "val: 1 nut, 2 bolt" in str(error.value)


def test_missing_paths(tmp_path):
    path, folder = make(tmp_path / "data")
    with pytest.raises(UserError, match="--train-json: the file nowhere.json does not exist"):
        prepare_custom_data(str(tmp_path), train=("nowhere.json", folder))
    with pytest.raises(UserError, match="--val-images: the folder nowhere does not exist"):
        prepare_custom_data(str(tmp_path), val=(path, "nowhere"))


def test_more_classes_than_the_model_has(cfg, tmp_path):
    source = make(tmp_path / "data")
    use_custom_data(cfg, prepare_custom_data(str(tmp_path / "checked"), train=source))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.DISTILL.METHODS = 1, ()
    message = "custom_train has 2 classes, MODEL.ROI_HEADS.NUM_CLASSES is 1: set it to 2"
    with pytest.raises(UserError, match=message):
        DistillTrainer(cfg)


def teardown_module():
    for name in ("custom_train", "custom_val"):
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
